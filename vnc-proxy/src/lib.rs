//! RFB server for one machine's display socket, over websocket and plain sockets.
//!
//! The way of a frame: [`surface`] (the machine's buffers and damage) → [`screen`] (the picture, and what
//! really changed of it, in [`tiles`], and what is in [`motion`]) → [`viewer`] (when to send) → [`encode`] (how to send; videos once for all, as [`film`]) → [`rfb`] (the
//! bytes) → a websocket or a plain socket ([`transport`]).
//!
//! The way of a key: [`rfb`] → [`viewer`] → [`input`] → [`surface`]. Nothing goes back up.
//!
//! The way of sound: [`surface`] → [`audio`] → a websocket of its own. A microphone's goes the other way.
//!
//! What is copied and typed beside keys goes between [`io::page`]s, [`viewer`]s and the guest's [`io::agent`].
//!
//! Every byte from a viewer and every message and pixel from a machine is hostile.

pub mod audio;
pub mod calls;
pub mod encode;
pub mod endpoint;
pub mod film;
pub mod input;
pub mod io;
pub mod jail;
pub mod memory;
pub mod motion;
pub mod picture;
pub mod rfb;
pub mod screen;
pub mod server;
pub mod surface;
pub mod tiles;
pub mod transport;
pub mod viewer;

pub use endpoint::Endpoint;
pub use server::{Config, Server};
