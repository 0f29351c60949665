//! What the server says (RFC 6143 §7.6).

use yunju_protocol::display::Rect;

use super::encodings;

/// A fence that wants to be answered.
pub const FENCE_REQUEST: u32 = 1 << 31;
/// What was said before a fence is done before it is answered.
pub const FENCE_BLOCK_BEFORE: u32 = 1;
/// What is said after a fence is done after it is answered.
pub const FENCE_BLOCK_AFTER: u32 = 2;
/// The message after a fence is done at the moment when it is answered.
pub const FENCE_SYNC_NEXT: u32 = 4;

/// Why the picture has another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeReason {
    /// The machine has changed it, or it is only told.
    Server = 0,
    /// This viewer asked for it.
    Viewer = 1,
}

/// How a viewer's wish for a size went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeStatus {
    /// It was granted.
    Done = 0,
    /// The viewer may not ask for one.
    Prohibited = 1,
    /// The machine did not follow in time.
    NoResources = 2,
    /// No such size is possible.
    InvalidLayout = 3,
}

/// A fence.
pub fn fence(flags: u32, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= super::incoming::MAX_FENCE);
    out.extend([248, 0, 0, 0]);
    out.extend(flags.to_be_bytes());
    out.push(payload.len() as u8);
    out.extend(payload);
}

/// Continuous updates are possible, or have ended.
pub fn end_of_continuous_updates(out: &mut Vec<u8>) {
    out.push(150);
}

/// One framebuffer update, written piece by piece to a sink that returns false when nobody listens any more.
pub struct Update<'a> {
    buffer: Vec<u8>,
    rects: u16,
    last_rect: bool,
    streaming: bool,
    heard: bool,
    /// Bytes that have gone to the sink.
    gone: usize,
    sink: &'a mut dyn FnMut(Vec<u8>) -> bool,
}

/// Pieces to the sink are about this long.
const PIECE: usize = 64 << 10;

impl<'a> Update<'a> {
    /// Begins an update. `last_rect`: the viewer knows [`encodings::LAST_RECT`], so that a long one can be sent
    /// before it is whole.
    pub fn new(last_rect: bool, sink: &'a mut dyn FnMut(Vec<u8>) -> bool) -> Self {
        Self { buffer: vec![0; 4], rects: 0, last_rect, streaming: false, heard: true, gone: 0, sink }
    }

    /// Begins a rectangle; its content is to be added to what is returned.
    pub fn rect(&mut self, rect: Rect, encoding: i32) -> &mut Vec<u8> {
        if self.last_rect && self.buffer.len() >= PIECE {
            if !self.streaming {
                self.streaming = true;
                self.buffer[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
            }
            let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE * 2));
            self.gone += piece.len();
            self.heard = self.heard && (self.sink)(piece);
        }
        self.rects += 1;
        for side in [rect.x, rect.y, rect.width, rect.height] {
            self.buffer.extend((side as u16).to_be_bytes());
        }
        self.buffer.extend(encoding.to_be_bytes());
        &mut self.buffer
    }

    /// Bytes of the update so far.
    pub fn bytes(&self) -> usize {
        self.gone + self.buffer.len()
    }

    /// Whether somebody listens still.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// Ends the update and says whether there was any; `then` follows it.
    pub fn end(mut self, then: &[u8]) -> bool {
        if self.rects == 0 {
            return false;
        }
        if self.streaming {
            self.rect(Rect::default(), encodings::LAST_RECT);
        } else {
            self.buffer[2..4].copy_from_slice(&self.rects.to_be_bytes());
        }
        self.buffer.extend(then);
        (self.sink)(self.buffer);
        true
    }
}

/// Content of an [`encodings::EXTENDED_DESKTOP_SIZE`] rectangle: one screen.
pub fn screens(width: u32, height: u32, out: &mut Vec<u8>) {
    out.extend([1, 0, 0, 0]);
    out.extend([0; 8]);
    out.extend((width as u16).to_be_bytes());
    out.extend((height as u16).to_be_bytes());
    out.extend([0; 4]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(last_rect: bool, rects: usize, content: usize) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut sink = |piece| {
            pieces.push(piece);
            true
        };
        let mut update = Update::new(last_rect, &mut sink);
        for _ in 0..rects {
            update.rect(Rect::of_size(1, 1), 0).extend(vec![0; content]);
        }
        update.end(b"then");
        pieces
    }

    #[test]
    fn a_short_update_is_one_piece_with_its_count() {
        let pieces = update(true, 3, 4);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0][..4], [0, 0, 0, 3]);
        assert!(pieces[0].ends_with(b"then"));
    }

    #[test]
    fn a_long_update_is_sent_in_pieces_if_the_viewer_knows_the_last_rect() {
        let pieces = update(true, 5, 40_000);
        assert!(pieces.len() > 1);
        assert_eq!(pieces[0][..4], [0, 0, 0xff, 0xff]);
        assert!(pieces.concat().ends_with(&[255, 255, 255, 0x20, b't', b'h', b'e', b'n']));
        assert_eq!(update(false, 5, 40_000).len(), 1);
    }

    #[test]
    fn an_empty_update_is_not_sent() {
        assert!(update(true, 0, 0).is_empty());
    }
}
