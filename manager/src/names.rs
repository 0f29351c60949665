//! What users and desktops may be called: short, lower case, safe in a URL, a file name and a terminal.

/// A name that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be the name of a {kind}: use 1 to 32 of a-z, 0-9 and `-`, starting with a letter or a digit")]
pub struct NameError {
    kind: &'static str,
    name: String,
}

/// Checks the name of a `kind` of thing.
pub fn check(kind: &'static str, name: &str) -> Result<(), NameError> {
    let characters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let first = name.bytes().next().is_some_and(|b| b != b'-');
    if characters && first && name.len() <= 32 {
        Ok(())
    } else {
        // what is echoed is bounded and printable
        let name = name.chars().filter(|c| !c.is_control()).take(40).collect();
        Err(NameError { kind, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_letters_digits_and_inner_dashes() {
        for name in ["a", "alice", "dev-2", "0", &"x".repeat(32)] {
            check("desktop", name).unwrap();
        }
        for name in ["", "-a", "Alice", "a/b", "..", "a b", "é", "a\n", &"x".repeat(33)] {
            assert!(check("desktop", name).is_err(), "{name}");
        }
        assert!(!check("user", "a\u{1b}[2Jb").unwrap_err().to_string().contains('\u{1b}'));
    }
}
