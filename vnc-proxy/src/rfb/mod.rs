//! The bytes of RFB 3.8 (RFC 6143 and the extensions listed at <https://github.com/rfbproto/rfbproto>).
//! No input or output happens here.

pub mod clipboard;
pub mod encodings;
pub mod handshake;
pub mod incoming;
pub mod outgoing;
pub mod pixel;
