//! Codes of an authenticator (RFC 6238): HMAC-SHA-1, six digits, thirty seconds, which is what all authenticators know.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// Bytes of a key that is shared with an authenticator.
pub const KEY: usize = 20;

/// How many recovery codes there are.
pub const RECOVERY_CODES: usize = 10;

const STEP_SECONDS: i64 = 30;

/// A fresh key.
pub fn key() -> [u8; KEY] {
    rand::random()
}

/// A key as people type it (base 32, RFC 4648 §6).
pub fn base32(key: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for chunk in key.chunks(5) {
        let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte)) << (8 * (5 - chunk.len()));
        let characters = (chunk.len() * 8).div_ceil(5);
        text.extend((0..characters).map(|n| char::from(ALPHABET[(bits >> (35 - 5 * n) & 31) as usize])));
    }
    text
}

/// What an authenticator reads from a QR code. `user` needs no escapes: names of users have none.
pub fn uri(user: &str, key: &[u8]) -> String {
    format!("otpauth://totp/Yunju:{user}?secret={}&issuer=Yunju", base32(key))
}

/// A QR code as an SVG document, black on white whatever is around it; `None` if the text is too long for one.
pub fn qr(text: &str) -> Option<String> {
    /// Modules around it (ISO/IEC 18004 §6.3.8).
    const QUIET: i32 = 4;
    let code = qrcodegen::QrCode::encode_text(text, qrcodegen::QrCodeEcc::Medium).ok()?;
    let size = code.size();
    let dark = (0..size).flat_map(|y| (0..size).map(move |x| (x, y))).filter(|(x, y)| code.get_module(*x, *y));
    let path: String = dark.map(|(x, y)| format!("M{} {}h1v1h-1z", x + QUIET, y + QUIET)).collect();
    let side = size + 2 * QUIET;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path d=\"{path}\"/></svg>"
    ))
}

/// The time step that `code` belongs to: the one of `now` (seconds since 1970) or one beside it, but later than `after`.
pub fn step_of(key: &[u8], code: &str, now: i64, after: i64) -> Option<i64> {
    let present = now / STEP_SECONDS;
    // all are compared, whichever fits
    let fits = [present - 1, present, present + 1].map(|step| (step, code_at(key, step)));
    fits.into_iter().rfind(|(step, right)| *step > after && same(right, code)).map(|(step, _)| step)
}

/// RFC 4226 §5.3
fn code_at(key: &[u8], step: i64) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[digest.len() - 1] & 15);
    let word = digest[offset..offset + 4].iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

/// Comparison that takes as long wherever the texts differ.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// What an authenticator shows now, for tests of what asks for it.
#[doc(hidden)]
pub fn code_now(key: &[u8]) -> String {
    code_at(key, jiff::Timestamp::now().as_second() / STEP_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // appendix B, the last six of eight digits
        let key = b"12345678901234567890";
        for (time, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(step_of(key, code, time, 0), Some(time / 30), "{time}");
        }
    }

    #[test]
    fn keys_are_written_as_rfc_4648_says() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(base32(&key()).len(), 32);
    }

    #[test]
    fn a_code_is_good_for_its_step_and_those_beside_it_and_never_twice() {
        let key = b"12345678901234567890";
        for now in [29, 30, 59, 60, 89] {
            assert_eq!(step_of(key, "287082", now, 0), Some(1), "{now}");
        }
        assert_eq!(step_of(key, "287082", 90, 0), None, "too old");
        assert_eq!(step_of(key, "287082", 59, 1), None, "used already");
        assert_eq!(step_of(key, "28708", 59, 0), None);
        assert_eq!(step_of(key, "", 59, 0), None);
    }
}
