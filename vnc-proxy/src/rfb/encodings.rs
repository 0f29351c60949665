//! Numbers of encodings and pseudo-encodings.

/// Uncompressed pixels.
pub const RAW: i32 = 0;
/// A rectangle of the viewer's own picture, moved.
pub const COPY_RECT: i32 = 1;
/// Several filters over zlib, and JPEG.
pub const TIGHT: i32 = 7;
/// Run lengths and palettes over zlib.
pub const ZRLE: i32 = 16;
/// Open H.264: coded video of an area.
pub const H264: i32 = 50;

/// JPEG quality 0 to 9: these numbers count up from here.
pub const QUALITY_0: i32 = -32;
/// Effort of compression 0 to 9: these numbers count up from here.
pub const COMPRESSION_0: i32 = -256;

/// The picture's size changes.
pub const DESKTOP_SIZE: i32 = -223;
/// Ends an update whose number of rectangles was not known before.
pub const LAST_RECT: i32 = -224;
/// Pointer's picture, with a bit mask.
pub const CURSOR: i32 = -239;
/// Keys by their scan code.
pub const QEMU_KEYS: i32 = -258;
/// The keyboard's lamps.
pub const QEMU_LEDS: i32 = -261;
/// The desktop's name changes.
pub const DESKTOP_NAME: i32 = -307;
/// The picture's size changes, on the server's or a viewer's wish.
pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
/// Marks in the stream that the other side sends back.
pub const FENCE: i32 = -312;
/// Updates without requests.
pub const CONTINUOUS_UPDATES: i32 = -313;
/// Pointer's picture, premultiplied alpha.
pub const CURSOR_WITH_ALPHA: i32 = -314;
/// More than eight mouse buttons.
pub const EXTENDED_MOUSE_BUTTONS: i32 = -316;
/// Clipboard text in UTF-8, announced before it is sent.
pub const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();
/// Pointer's picture, straight alpha ("WMVd").
pub const VMWARE_CURSOR: i32 = 0x574d_5664;

/// How rectangles of pixels are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// [`RAW`].
    #[default]
    Raw,
    /// [`ZRLE`].
    Zrle,
    /// [`TIGHT`].
    Tight,
}

/// How the pointer's picture is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorForm {
    /// [`CURSOR`].
    Mask,
    /// [`CURSOR_WITH_ALPHA`].
    Alpha,
    /// [`VMWARE_CURSOR`].
    Vmware,
}

/// What a viewer understands, of what we can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// The first of the encodings it listed that we have.
    pub encoding: Encoding,
    /// JPEG quality 0 to 9, if JPEG is welcome.
    pub quality: Option<u8>,
    /// Effort of compression, 0 to 9.
    pub compression: u8,
    /// The best form of pointer.
    pub cursor: Option<CursorForm>,
    /// [`COPY_RECT`].
    pub copy_rect: bool,
    /// [`H264`].
    pub h264: bool,
    /// [`LAST_RECT`].
    pub last_rect: bool,
    /// [`DESKTOP_SIZE`].
    pub desktop_size: bool,
    /// [`EXTENDED_DESKTOP_SIZE`].
    pub extended_desktop_size: bool,
    /// [`DESKTOP_NAME`].
    pub desktop_name: bool,
    /// [`QEMU_KEYS`].
    pub qemu_keys: bool,
    /// [`QEMU_LEDS`].
    pub qemu_leds: bool,
    /// [`EXTENDED_MOUSE_BUTTONS`].
    pub mouse_buttons: bool,
    /// [`EXTENDED_CLIPBOARD`].
    pub extended_clipboard: bool,
    /// [`FENCE`].
    pub fence: bool,
    /// [`CONTINUOUS_UPDATES`].
    pub continuous: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Abilities {
    /// Reads a viewer's list.
    pub fn of(list: &[i32]) -> Self {
        let has = |encoding| list.contains(&encoding);
        let level = |zero: i32| list.iter().find_map(|n| u8::try_from(n - zero).ok().filter(|level| *level <= 9));
        let cursor = if has(VMWARE_CURSOR) {
            Some(CursorForm::Vmware)
        } else if has(CURSOR_WITH_ALPHA) {
            Some(CursorForm::Alpha)
        } else {
            has(CURSOR).then_some(CursorForm::Mask)
        };
        let encoding = list.iter().find_map(|encoding| match *encoding {
            RAW => Some(Encoding::Raw),
            ZRLE => Some(Encoding::Zrle),
            TIGHT => Some(Encoding::Tight),
            _ => None,
        });
        Self {
            encoding: encoding.unwrap_or_default(),
            quality: level(QUALITY_0),
            compression: level(COMPRESSION_0).unwrap_or(2),
            cursor,
            copy_rect: has(COPY_RECT),
            h264: has(H264),
            last_rect: has(LAST_RECT),
            desktop_size: has(DESKTOP_SIZE),
            extended_desktop_size: has(EXTENDED_DESKTOP_SIZE),
            desktop_name: has(DESKTOP_NAME),
            qemu_keys: has(QEMU_KEYS),
            qemu_leds: has(QEMU_LEDS),
            mouse_buttons: has(EXTENDED_MOUSE_BUTTONS),
            extended_clipboard: has(EXTENDED_CLIPBOARD),
            fence: has(FENCE),
            continuous: has(CONTINUOUS_UPDATES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_encoding_is_preferred() {
        assert_eq!(Abilities::of(&[5, 16, 7, 0]).encoding, Encoding::Zrle);
        assert_eq!(Abilities::of(&[7, 0]).encoding, Encoding::Tight);
        assert_eq!(Abilities::of(&[5]).encoding, Encoding::Raw);
    }

    #[test]
    fn levels_are_read_from_their_ranges_only() {
        assert_eq!(Abilities::of(&[-26, -250]).quality, Some(6));
        assert_eq!(Abilities::of(&[-26, -250]).compression, 6);
        assert_eq!(Abilities::of(&[-33, -22, i32::MIN + 300]).quality, None);
    }
}
