//! Hardware addresses.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// A string that is no hardware address of one interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no hardware address: write six hexadecimal bytes such as 52:54:00:12:34:56, the first one even")]
pub struct MacError(String);

/// Reads `52:54:00:12:34:56`. A group address (odd first byte) or all zeros names no interface.
pub fn parse_mac(text: &str) -> Result<[u8; 6], MacError> {
    let error = || MacError(text.to_owned());
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().ok_or_else(error)?;
        if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(error());
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
    }
    let whole = parts.next().is_none();
    let one = mac[0] & 1 == 0 && mac != [0; 6];
    if whole && one { Ok(mac) } else { Err(error()) }
}

/// A random address with the prefix that virtual machines use, 52:54:00.
pub fn random_mac() -> io::Result<[u8; 6]> {
    let mut mac = [0x52, 0x54, 0, 0, 0, 0];
    // Three bytes come whole: the kernel cuts no request below 256 bytes short.
    getrandom(&mut mac[3..], GetRandomFlags::empty())?;
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_six_bytes_of_one_interface() {
        assert_eq!(parse_mac("52:54:00:aB:cd:0F"), Ok([0x52, 0x54, 0, 0xab, 0xcd, 0x0f]));
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52-54-00-12-34-56",
            "5:54:00:12:34:56",
            "52:54:00:12:34:5g",
            "+2:54:00:12:34:56",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "éé:00:00:00:00:00",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn random_addresses_differ_and_are_local() {
        let (first, second) = (random_mac().unwrap(), random_mac().unwrap());
        assert_ne!(first, second);
        assert_eq!(first[..3], [0x52, 0x54, 0]);
    }
}
