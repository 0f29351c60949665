//! Commands and answers in memory (virtio 1.2 §5.7.6.7, §5.7.6.8, §5.7.6.10).

use vm_memory::ByteValued;
use yunju_protocol::display::Rect;

pub const GET_DISPLAY_INFO: u32 = 0x0100;
pub const RESOURCE_CREATE_2D: u32 = 0x0101;
pub const RESOURCE_UNREF: u32 = 0x0102;
pub const SET_SCANOUT: u32 = 0x0103;
pub const RESOURCE_FLUSH: u32 = 0x0104;
pub const TRANSFER_TO_HOST_2D: u32 = 0x0105;
pub const RESOURCE_ATTACH_BACKING: u32 = 0x0106;
pub const RESOURCE_DETACH_BACKING: u32 = 0x0107;
pub const GET_EDID: u32 = 0x010a;
pub const UPDATE_CURSOR: u32 = 0x0300;

pub const OK_NODATA: u32 = 0x1100;
pub const OK_DISPLAY_INFO: u32 = 0x1101;
pub const OK_EDID: u32 = 0x1104;

/// Header flag: the answer carries the fence.
pub const FLAG_FENCE: u32 = 1 << 0;

/// Screens that a display info answer has room for.
pub const MAX_SCANOUTS: usize = 16;
/// Bytes that an EDID answer has room for.
pub const EDID_ROOM: usize = 1024;

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// A command that is unknown, cut short, or impossible now.
    Unspecified = 0x1200,
    /// A limit of ours, or no memory left.
    OutOfMemory = 0x1201,
    /// There is one screen, number 0.
    InvalidScanout = 0x1202,
    /// No such resource, or there is one already.
    InvalidResource = 0x1203,
    /// A number that makes no sense.
    InvalidParameter = 0x1205,
}

/// What precedes every command and answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    pub kind: u32,
    pub flags: u32,
    pub fence: u64,
    pub context: u32,
    pub ring: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Area {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Create {
    pub resource: u32,
    pub format: u32,
    pub width: u32,
    pub height: u32,
}

/// The body of the commands that name a resource and no more.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Named {
    pub resource: u32,
    pub padding: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct SetScanout {
    pub area: Area,
    pub scanout: u32,
    pub resource: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Flush {
    pub area: Area,
    pub resource: u32,
    pub padding: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Transfer {
    pub area: Area,
    /// Where the area's first pixel is in the backing.
    pub offset: u64,
    pub resource: u32,
    pub padding: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct AttachBacking {
    pub resource: u32,
    pub entries: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct BackingEntry {
    pub address: u64,
    pub length: u32,
    pub padding: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct GetEdid {
    pub scanout: u32,
    pub padding: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct UpdateCursor {
    pub scanout: u32,
    pub x: u32,
    pub y: u32,
    pub padding: u32,
    pub resource: u32,
    pub hot_x: u32,
    pub hot_y: u32,
    pub padding_too: u32,
}

// SAFETY: integers only, without padding.
unsafe impl ByteValued for Header {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for Area {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for Create {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for Named {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for SetScanout {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for Flush {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for Transfer {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for AttachBacking {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for BackingEntry {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for GetEdid {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for UpdateCursor {}

impl Area {
    /// The rectangle, if it lies within `width` by `height` pixels.
    pub fn within(self, width: u32, height: u32) -> Result<Rect, Refusal> {
        let inside = |start: u32, length: u32, end: u32| start.checked_add(length).is_some_and(|last| last <= end);
        if inside(self.x, self.width, width) && inside(self.y, self.height, height) {
            Ok(Rect { x: self.x, y: self.y, width: self.width, height: self.height })
        } else {
            Err(Refusal::InvalidParameter)
        }
    }
}
