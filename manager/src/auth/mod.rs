//! Who somebody is and what they may: passwords and tokens ([`brake`]: the cost of guessing them), and [`authorize`].

pub mod authorize;
pub mod brake;
pub mod rate;
pub mod totp;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};

/// How long a login lasts.
pub const SESSION_SECONDS: i64 = 7 * 24 * 3600;

/// Bounds of a password that a person chooses, in bytes; the upper one bounds the work of hashing it.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// A fresh password without look-alike characters: 20 characters of 32, 100 bits.
pub fn one_time_password() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes: [u8; 20] = rand::random();
    let characters: Vec<u8> = bytes.iter().map(|b| ALPHABET[usize::from(b % 32)]).collect();
    characters.chunks(5).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
}

/// Argon2id with a random salt, in PHC form. Takes tens of milliseconds and 19 MiB.
pub fn hash_password(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the default parameters are valid and the system has random numbers").to_string()
}

/// Whether `password` has this `hash`. Without a hash the same work is done and the answer is no,
/// so that time tells neither which users exist nor who has yet to choose a password.
pub fn verify_password(password: &str, hash: Option<&str>) -> bool {
    static NOBODY: LazyLock<String> = LazyLock::new(|| hash_password("nobody"));
    let hash = hash.filter(|hash| *hash != NO_PASSWORD);
    let known = hash.is_some();
    let Ok(hash) = PasswordHash::new(hash.unwrap_or(&NOBODY)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok() && known
}

/// A random 256-bit token in hexadecimal.
pub fn token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands instead of a hash until a user has chosen a password: none fits.
pub const NO_PASSWORD: &str = "!";

/// How API tokens begin, so that whoever finds one knows what it is.
pub const API_TOKEN: &str = "yj_";

/// A random API token.
pub fn api_token() -> String {
    format!("{API_TOKEN}{}", token())
}

/// Addresses that one person can have at will count as one: those of a network of IPv6 (/64).
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// What of a token is stored.
pub fn token_hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_recognised_by_its_hash_and_another_is_not() {
        let hash = hash_password("correct horse");
        assert!(hash.starts_with("$argon2id$"));
        assert!(verify_password("correct horse", Some(&hash)));
        assert!(!verify_password("correct horse ", Some(&hash)));
        assert!(!verify_password("nobody", None));
        assert!(!verify_password("x", Some("not a hash")));
        assert!(!verify_password("!", Some(NO_PASSWORD)));
    }

    #[test]
    fn one_time_passwords_are_long_and_differ() {
        let password = one_time_password();
        assert_eq!(password.len(), 23);
        assert_ne!(password, one_time_password());
    }
}
