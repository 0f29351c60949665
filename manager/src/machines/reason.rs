//! Why a machine ended: the last line of its log, and how its process ended.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::process::Exit;

/// How much of the log's end is looked at.
const TAIL: u64 = 8 << 10;

/// The longest reason that is kept.
const LONGEST: usize = 300;

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For people.
    pub text: String,
    /// Nobody wanted it.
    pub failed: bool,
    /// The VMM says that it could not build or run the machine.
    pub refused: bool,
}

impl Reason {
    /// A reason of ours.
    pub fn new(text: impl Into<String>, failed: bool) -> Self {
        Self { text: text.into(), failed, refused: false }
    }
}

/// Reads why the VMM whose log is `log` ended.
pub fn find(log: &Path, exit: Exit) -> Reason {
    decide(&last_words(log).unwrap_or_default(), exit)
}

fn last_words(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn decide(words: &str, exit: Exit) -> Reason {
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let clean = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(LONGEST).collect() };
    if let Some(error) = last.strip_prefix("yunju-vmm: error: ") {
        return Reason { refused: true, ..Reason::new(clean(error), true) };
    }
    if let Some(reason) = last.strip_prefix("yunju-vmm: machine ended: ") {
        let failed = match exit {
            Exit::Code(code) => code != 0,
            Exit::Signal(_) => true,
            Exit::Unknown => ["crash", "triple fault", "error"].iter().any(|word| reason.contains(word)),
        };
        return Reason::new(clean(reason), failed);
    }
    let text = match (exit, last) {
        (Exit::Signal(signal), _) => format!("the machine's process was killed by signal {signal}"),
        (Exit::Code(code), "") => format!("the machine's process ended with code {code} and no word"),
        (Exit::Code(code), last) => format!("the machine's process ended with code {code}: {}", clean(last)),
        (Exit::Unknown, _) => "the machine's process vanished".to_owned(),
    };
    Reason::new(text, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_log_is_the_reason() {
        let decide = |words: &str, exit| {
            let Reason { text, failed, .. } = decide(words, exit);
            (text, failed)
        };
        let powered_off = "noise\nyunju-vmm: machine ended: powered off by the guest\n";
        assert_eq!(decide(powered_off, Exit::Code(0)), ("powered off by the guest".into(), false));
        assert_eq!(decide(powered_off, Exit::Unknown), ("powered off by the guest".into(), false));
        let crashed = "yunju-vmm: machine ended: triple fault";
        assert_eq!(decide(crashed, Exit::Code(3)), ("triple fault".into(), true));
        assert_eq!(decide(crashed, Exit::Unknown), ("triple fault".into(), true));
        let refused = "yunju-vmm: error: /dev/kvm: permission denied\n\n";
        assert_eq!(decide(refused, Exit::Code(1)), ("/dev/kvm: permission denied".into(), true));
    }

    #[test]
    fn without_a_word_the_way_the_process_ended_is_the_reason() {
        assert_eq!(decide("", Exit::Signal(9)).text, "the machine's process was killed by signal 9");
        assert!(decide("", Exit::Code(127)).text.contains("127"));
        assert!(decide("thread panicked", Exit::Code(101)).text.contains("thread panicked"));
        assert!(decide("", Exit::Unknown).failed);
    }

    #[test]
    fn a_log_full_of_rubbish_gives_a_short_printable_reason() {
        let reason = decide(&format!("yunju-vmm: error: \u{1b}[2J{}", "x".repeat(9999)), Exit::Code(1));
        assert!(reason.text.len() <= LONGEST && !reason.text.contains('\u{1b}'));
        assert!(find(Path::new("/nonexistent"), Exit::Unknown).failed);
    }
}
