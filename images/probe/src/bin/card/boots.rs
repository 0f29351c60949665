//! How often this card was started, kept in the first sector of its disk.

use guest::virtio::block::{Disk, SECTOR};

const MAGIC: &[u8; 16] = b"yunju card boots";

/// Counts this start. Nothing without a disk, or if what is on it is not ours.
pub fn count() -> Option<u64> {
    let mut disk = Disk::open(0).ok()?;
    let mut sector = [0; SECTOR];
    disk.read(0, &mut sector).ok()?;
    let sector = core::hint::black_box(&mut sector);
    if sector.iter().any(|byte| *byte != 0) && !sector.starts_with(MAGIC) {
        return None;
    }
    sector[..16].copy_from_slice(MAGIC);
    let (_, number) = sector.split_at_mut(16);
    let number = number.first_chunk_mut::<8>()?;
    let boots = u64::from_le_bytes(*number) + 1;
    *number = boots.to_le_bytes();
    disk.write(0, &sector[..]).ok()?;
    // A disk that keeps nothing back has no flush.
    let _ = disk.flush();
    Some(boots)
}
