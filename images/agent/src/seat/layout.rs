//! The keyboard's layout: the compositor reads it from a file when it is told to read its settings again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::protocol::Layout;

/// Below the person's home; the image's `environment.d` of labwc is a link to it.
const FOLDER: &str = ".local/state/yunju/labwc";
const FILE: &str = "keyboard.env";

/// Writes the file for a home, and says whether it was another before.
pub fn write(home: &Path, layout: &Layout) -> io::Result<bool> {
    if !layout.is_name() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{layout:?} is no layout")));
    }
    let folder = home.join(FOLDER);
    let file: PathBuf = folder.join(FILE);
    let text = format!("XKB_DEFAULT_LAYOUT={}\nXKB_DEFAULT_VARIANT={}\n", layout.layout, layout.variant);
    if fs::read_to_string(&file).is_ok_and(|before| before == text) {
        return Ok(false);
    }
    fs::create_dir_all(&folder)?;
    let new = folder.join(".keyboard.new");
    fs::write(&new, text)?;
    fs::rename(new, file)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(layout: &str, variant: &str) -> Layout {
        Layout { layout: layout.into(), variant: variant.into() }
    }

    #[test]
    fn a_layout_is_written_once() {
        let home = tempfile::tempdir().unwrap();
        assert!(write(home.path(), &layout("de", "nodeadkeys")).unwrap());
        assert!(!write(home.path(), &layout("de", "nodeadkeys")).unwrap());
        let file = home.path().join(FOLDER).join(FILE);
        assert_eq!(fs::read_to_string(&file).unwrap(), "XKB_DEFAULT_LAYOUT=de\nXKB_DEFAULT_VARIANT=nodeadkeys\n");
        assert!(write(home.path(), &layout("us", "")).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "XKB_DEFAULT_LAYOUT=us\nXKB_DEFAULT_VARIANT=\n");
    }

    #[test]
    fn what_is_no_name_is_not_written() {
        let home = tempfile::tempdir().unwrap();
        for bad in ["", "us\nLD_PRELOAD=x", "$(reboot)", "../us"] {
            assert!(write(home.path(), &layout(bad, "")).is_err());
        }
        assert!(!home.path().join(FOLDER).exists());
    }
}
