//! One viewer's clipboard and the guest's, kept in step. No input or output happens here.

use std::sync::Arc;

use yunju_protocol::seat::Kind;

use crate::io::Clip;
use crate::rfb::clipboard::{self, Cut, MOST_CUT};

/// What a viewer has been told of the guest's clipboard, and is owed.
#[derive(Debug, Default)]
pub struct Cutting {
    /// It knows the extended clipboard, and has been told that we do.
    extended: bool,
    /// The newest text of the guest, if any.
    text: Option<Arc<Clip>>,
    owed: Owed,
    incoming: Option<Incoming>,
}

/// What is to be sent, in this order.
#[derive(Debug, Default)]
struct Owed {
    caps: bool,
    request: bool,
    notify: bool,
    text: bool,
}

/// A message of the viewer's whose content is still on its way.
#[derive(Debug)]
struct Incoming {
    extended: bool,
    left: usize,
    /// What there is of it; `None` if it is too long to be kept, or unwanted.
    kept: Option<Vec<u8>>,
}

impl Cutting {
    /// Whether the viewer knows the extended clipboard.
    pub fn set_extended(&mut self, extended: bool) {
        self.owed.caps |= extended && !self.extended;
        self.extended = extended;
    }

    /// Something else was copied in the guest.
    pub fn on_copied(&mut self, clip: &Arc<Clip>) {
        self.text = Some(clip.clone()).filter(|clip| clip.kind == Kind::Text);
        if self.text.is_some() {
            *(if self.extended { &mut self.owed.notify } else { &mut self.owed.text }) = true;
        }
    }

    /// A clipboard message of so many bytes begins. One that the viewer may not send is passed over.
    pub fn begin(&mut self, extended: bool, length: usize, may: bool) {
        let kept = (may && length <= MOST_CUT).then(Vec::new);
        self.incoming = Some(Incoming { extended, left: length, kept });
    }

    /// Takes what belongs to the message that has begun; returns how many bytes that is, and the text for the guest, if
    /// that is what it was.
    pub fn take(&mut self, bytes: &[u8]) -> (usize, Option<String>) {
        let Some(incoming) = &mut self.incoming else { return (0, None) };
        let count = incoming.left.min(bytes.len());
        incoming.left -= count;
        if let Some(kept) = &mut incoming.kept {
            kept.extend_from_slice(&bytes[..count]);
        }
        if incoming.left > 0 {
            return (count, None);
        }
        let whole = self.incoming.take().and_then(|incoming| Some((incoming.extended, incoming.kept?)));
        (count, whole.and_then(|(extended, bytes)| self.on_cut(clipboard::parse(extended, &bytes))))
    }

    fn on_cut(&mut self, cut: Cut) -> Option<String> {
        match cut {
            Cut::Text(text) => return Some(text),
            Cut::Notify => self.owed.request = true,
            Cut::Request => self.owed.text = true,
            Cut::Peek => self.owed.notify = true,
            Cut::Nothing => {}
        }
        None
    }

    /// The next message that is owed.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let due = std::mem::take::<bool>;
        if due(&mut self.owed.caps) {
            return Some(clipboard::caps());
        }
        if due(&mut self.owed.request) {
            return Some(clipboard::request());
        }
        if due(&mut self.owed.notify) {
            return Some(clipboard::notify(self.text.is_some()));
        }
        let text = self.text.as_ref().filter(|_| due(&mut self.owed.text))?;
        let text = String::from_utf8_lossy(&text.bytes);
        Some(if self.extended { clipboard::provide(&text) } else { clipboard::latin1(&text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(kind: Kind, bytes: &[u8]) -> Arc<Clip> {
        Arc::new(Clip { number: 1, kind, bytes: bytes.to_vec() })
    }

    #[test]
    fn a_viewer_of_old_is_sent_text_at_once_and_only_the_newest() {
        let mut cutting = Cutting::default();
        cutting.on_copied(&clip(Kind::Text, b"one"));
        cutting.on_copied(&clip(Kind::Text, b"two"));
        assert_eq!(cutting.next_message(), Some(clipboard::latin1("two")));
        assert_eq!(cutting.next_message(), None);
        cutting.on_copied(&clip(Kind::Png, b"\x89PNG\r\n\x1a\n"));
        assert_eq!(cutting.next_message(), None, "pictures have no message");
    }

    #[test]
    fn a_viewer_with_the_extension_fetches_text_when_it_wants_to() {
        let mut cutting = Cutting::default();
        cutting.set_extended(true);
        cutting.set_extended(true);
        assert_eq!(cutting.next_message(), Some(clipboard::caps()));
        cutting.on_copied(&clip(Kind::Text, "汉".as_bytes()));
        assert_eq!(cutting.next_message(), Some(clipboard::notify(true)));
        assert_eq!(cutting.next_message(), None);
        cutting.begin(true, 4, true);
        assert_eq!(cutting.take(&[2, 0, 0, 1, 9]), (4, None), "a request, and what follows is not its");
        assert_eq!(cutting.next_message(), Some(clipboard::provide("汉")));
        assert_eq!(cutting.next_message(), None);
    }

    #[test]
    fn text_of_a_viewer_comes_in_pieces_and_is_asked_for_if_it_is_announced() {
        let mut cutting = Cutting::default();
        assert_eq!(cutting.take(b"none"), (0, None));
        cutting.begin(false, 6, true);
        assert_eq!(cutting.take(b"caf"), (3, None));
        assert_eq!(cutting.take(b"\xe9\r\nrest"), (3, Some("café\n".into())));
        cutting.begin(true, 4, true);
        cutting.take(&[8, 0, 0, 1]);
        assert_eq!(cutting.next_message(), Some(clipboard::request()));
    }

    #[test]
    fn what_is_too_long_is_passed_over() {
        let mut cutting = Cutting::default();
        cutting.begin(false, MOST_CUT + 1, true);
        let piece = vec![b'x'; MOST_CUT];
        assert_eq!(cutting.take(&piece), (MOST_CUT, None));
        assert_eq!(cutting.take(b"xy"), (1, None));
        assert_eq!(cutting.take(b"y"), (0, None));
    }
}
