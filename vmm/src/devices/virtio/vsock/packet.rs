//! The header of every packet (virtio 1.2 §5.10.6).

use vm_memory::ByteValued;

/// The context id of the host.
pub const HOST_CID: u64 = 2;

/// The only socket type offered (§5.10.6): a byte stream.
pub const STREAM: u16 = 1;

/// Asks for a connection.
pub const REQUEST: u16 = 1;
/// Accepts one.
pub const RESPONSE: u16 = 2;
/// Refuses or ends one at once.
pub const RST: u16 = 3;
/// Announces the end of one or both directions.
pub const SHUTDOWN: u16 = 4;
/// Carries data.
pub const RW: u16 = 5;
/// Tells how much was taken.
pub const CREDIT_UPDATE: u16 = 6;
/// Asks for a credit update.
pub const CREDIT_REQUEST: u16 = 7;

/// Flag of a shutdown: the sender will receive no more.
pub const NO_RECEIVE: u32 = 1;
/// Flag of a shutdown: the sender will send no more.
pub const NO_SEND: u32 = 2;
/// Both: the connection is over.
pub const OVER: u32 = NO_RECEIVE | NO_SEND;

/// Bytes of a [`Header`].
pub const LENGTH: usize = size_of::<Header>();

/// §5.10.6, in the byte order of virtio and of the only processors we run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

// SAFETY: integers only, packed, so that every byte pattern is a header and no byte is padding.
unsafe impl ByteValued for Header {}

impl Header {
    /// The reset that answers this packet.
    pub fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: RST,
            ..Self::default()
        }
    }
}
