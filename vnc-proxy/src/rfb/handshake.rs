//! The opening of an RFB connection (RFC 6143 §7.1–7.3).

use super::pixel::PixelFormat;

/// What we say first.
pub const GREETING: &[u8; 12] = b"RFB 003.008\n";

/// The security type "none", the only one we have: who may connect is decided before.
pub const SECURITY_NONE: u8 = 1;

/// The version that the viewer will speak. Others are spoken as the nearest lower of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The server chooses the security type.
    V3_3,
    /// The viewer chooses.
    V3_7,
    /// The viewer chooses and is told the result.
    V3_8,
}

impl Version {
    /// Reads a viewer's answer to [`GREETING`]; `None` if it is no version.
    pub fn parse(answer: &[u8; 12]) -> Option<Self> {
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u16>().ok();
        let [b'R', b'F', b'B', b' ', major @ .., b'\n'] = answer else { return None };
        match (number(&major[..3])?, major[3], number(&major[4..])?) {
            (3, b'.', ..=6) => Some(Self::V3_3),
            (3, b'.', 7) => Some(Self::V3_7),
            (3.., b'.', _) => Some(Self::V3_8),
            _ => None,
        }
    }

    /// What security there is.
    pub fn security(self) -> Vec<u8> {
        match self {
            Self::V3_3 => vec![0, 0, 0, SECURITY_NONE],
            _ => vec![1, SECURITY_NONE],
        }
    }
}

/// The server's last word of the handshake.
pub fn server_init(width: u16, height: u16, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(width.to_be_bytes());
    out.extend(height.to_be_bytes());
    out.extend(PixelFormat::BGRX.wire());
    out.extend((name.len() as u32).to_be_bytes());
    out.extend(name.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_versions_are_understood() {
        for (answer, version) in [
            (b"RFB 003.003\n", Some(Version::V3_3)),
            (b"RFB 003.005\n", Some(Version::V3_3)),
            (b"RFB 003.007\n", Some(Version::V3_7)),
            (b"RFB 003.008\n", Some(Version::V3_8)),
            (b"RFB 003.889\n", Some(Version::V3_8)),
            (b"RFB 005.000\n", Some(Version::V3_8)),
            (b"RFB 002.000\n", None),
            (b"RFB 003.0081", None),
            (b"GET / HTTP/1", None),
        ] {
            assert_eq!(Version::parse(answer), version, "{}", String::from_utf8_lossy(answer));
        }
    }
}
