//! Copies of disk files that take only the room that their data needs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Copies `from` to the new file `to`: by reference where the file system can, else extent by extent,
/// leaving holes as holes. A hole is added to reach `length`. The copy is on the disk when this returns.
pub fn copy_sparse(from: &Path, to: &Path, length: u64) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    if ioctl_ficlone(&target, &source).is_err() {
        copy_extents(&source, &target)?;
    }
    if length > target.metadata()?.len() {
        ftruncate(&target, length)?;
    }
    target.sync_all()
}

fn copy_extents(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    ftruncate(target, length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(source, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break, // only a hole is left
            start => start?,
        };
        let end = seek(source, SeekFrom::Hole(start))?.min(length);
        copy_range(source, target, start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, mut start: u64, end: u64) -> io::Result<()> {
    while start < end {
        let (mut read_at, mut write_at) = (start, start);
        let want = usize::try_from(end - start).unwrap_or(usize::MAX).min(1 << 30);
        let copied = match copy_file_range(source, Some(&mut read_at), target, Some(&mut write_at), want) {
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                copy_piece(source, target, start, want)?
            }
            copied => copied?,
        };
        if copied == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was copied"));
        }
        start += copied as u64;
    }
    Ok(())
}

/// For pairs of file systems between which the kernel does not copy.
fn copy_piece(source: &File, target: &File, at: u64, want: usize) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; want.min(1 << 20)];
    let count = source.read_at(&mut buffer, at)?;
    target.write_all_at(&buffer[..count], at)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn sparse_file(path: &Path) {
        let file = File::create_new(path).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(&[7; 200_000], 20 << 20).unwrap();
        file.write_all_at(b"last", (64 << 20) - 4).unwrap();
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_no_more_blocks_than_its_data_needs() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        sparse_file(&from);
        copy_sparse(&from, &to, 0).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "contents differ");
        let blocks = std::fs::metadata(&to).unwrap().blocks() * 512;
        assert!(blocks < 2 << 20, "{blocks} bytes are allocated for 200 KB of data");
    }

    #[test]
    fn extents_are_copied_too_where_files_cannot_be_cloned() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        sparse_file(&from);
        let (source, target) = (File::open(&from).unwrap(), File::create_new(&to).unwrap());
        copy_extents(&source, &target).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "contents differ");
        assert!(target.metadata().unwrap().blocks() * 512 < 2 << 20);
    }

    #[test]
    fn empty_and_wholly_sparse_files_keep_their_length() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1 << 20] {
            let (from, to) = (folder.path().join(format!("f{length}")), folder.path().join(format!("t{length}")));
            File::create_new(&from).unwrap().set_len(length).unwrap();
            copy_sparse(&from, &to, 0).unwrap();
            assert_eq!(std::fs::metadata(&to).unwrap().len(), length);
        }
    }

    #[test]
    fn a_copy_that_is_to_be_longer_ends_in_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, "data").unwrap();
        copy_sparse(&from, &to, 1 << 30).unwrap();
        let copy = std::fs::metadata(&to).unwrap();
        assert_eq!((copy.len(), copy.blocks() * 512 < 1 << 20), (1 << 30, true));
        let mut start = [0; 6];
        File::open(&to).unwrap().read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"data\0\0");
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        assert!(copy_sparse(&from, &to, 0).is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
    }
}
