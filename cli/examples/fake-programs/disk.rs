//! Disks of a machine without a guest: a disk holds one word, and a layer perhaps another one.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use yunju_protocol::machine::DiskConfig;

use super::end;

/// A layer: three lines, which are its name, that of what it lies on, and the word, if it has one.
struct Layer {
    parent: String,
    word: String,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

const MAGIC: &str = "FAKELAYER-OF-TEXT";

fn format(file: &mut File, parent: &str, word: &str) {
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(format!("{MAGIC}\n{parent}\n{word}\n").as_bytes()).unwrap();
    file.sync_all().unwrap();
}

/// A raw file has the word that its first byte is.
fn read(path: &Path) -> Layer {
    let bytes = fs::read(path).unwrap_or_else(|error| end(&format!("error: {}: {error}", path.display()), 1));
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Layer { parent: String::new(), word: format!("raw-{}", bytes.first().unwrap()) };
    }
    let mut line = || lines.next().unwrap().to_owned();
    Layer { parent: line(), word: line() }
}

/// A disk that a machine has.
pub struct Disk {
    chain: Vec<PathBuf>,
    top: File,
    _locks: Vec<File>,
}

impl Disk {
    pub fn open(config: &DiskConfig) -> Self {
        let chain: Vec<PathBuf> = config.layers.iter().chain([&config.path]).cloned().collect();
        for pair in chain.windows(2) {
            let parent = read(&pair[1]).parent;
            if parent != name(&pair[0]) {
                end(&format!("error: {} lies on {parent}, not on {}", pair[1].display(), pair[0].display()), 1);
            }
        }
        let open = |path: &PathBuf, write: bool| {
            let file = File::options().read(true).write(write).open(path).unwrap();
            let locked = if write { file.try_lock() } else { file.try_lock_shared() };
            if locked.is_err() {
                end(&format!("error: {} is in use", path.display()), 1);
            }
            file
        };
        let locks = config.layers.iter().map(|path| open(path, false)).collect();
        Self { top: open(&config.path, !config.readonly), chain, _locks: locks }
    }

    pub fn word(&self) -> String {
        let words = self.chain.iter().rev().map(|path| read(path).word);
        words.into_iter().find(|word| !word.is_empty()).unwrap()
    }

    pub fn set_word(&mut self, word: &str) {
        let path = self.chain.last().unwrap();
        let parent = read(path).parent;
        if self.chain.len() == 1 {
            let byte: u8 = word.strip_prefix("raw-").and_then(|byte| byte.parse().ok()).unwrap();
            self.top.rewind().unwrap();
            self.top.write_all(&[byte]).unwrap();
        } else {
            format(&mut self.top, &parent, word);
        }
    }

    /// What was written to is frozen; the empty file goes on top.
    pub fn new_layer(&mut self, mut file: File) {
        assert_eq!(file.metadata().unwrap().len(), 0, "a new layer's file must be empty");
        let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
        format(&mut file, &name(self.chain.last().unwrap()), "");
        self.top.unlock().unwrap();
        self.top.try_lock_shared().unwrap();
        file.try_lock().unwrap();
        let frozen = std::mem::replace(&mut self.top, file);
        self._locks.push(frozen);
        self.chain.push(path);
    }
}

/// `yunju-vmm disk …`
pub fn command(arguments: &[String]) {
    let paths = |from: &str| -> Vec<PathBuf> {
        let rest = arguments.iter().skip_while(|a| *a != from).skip(1);
        rest.take_while(|a| !a.starts_with("--")).map(PathBuf::from).collect()
    };
    let make = |path: &Path, parent: &str, word: &str| match File::create_new(path) {
        Ok(mut file) => format(&mut file, parent, word),
        Err(error) => end(&format!("error: {}: {error}", path.display()), 1),
    };
    match arguments[0].as_str() {
        "create" => {
            let lower = paths("--on");
            lower.iter().for_each(|path| drop(read(path)));
            make(&paths("create")[0], &name(lower.last().unwrap()), "");
        }
        "merge" => {
            let chain = paths("merge");
            let word = chain.iter().rev().map(|path| read(path).word).find(|word| !word.is_empty());
            make(&paths("--to")[0], &read(&chain[0]).parent, &word.unwrap_or_default());
        }
        other => end(&format!("error: disk {other} is not known"), 2),
    }
}

/// Reads all of a file whatever was done with it before.
pub fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}
