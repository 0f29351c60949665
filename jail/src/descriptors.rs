//! Descriptors that nobody meant to hand down.

use std::io;

/// Closes all descriptors from 3 on but those named. Must be called before anything is opened.
pub fn close_all_but(kept: impl IntoIterator<Item = i32>) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.into_iter().filter_map(|number| u32::try_from(number).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().filter(|number| *number > 2).chain([u32::MAX]) {
        if first < number {
            close_range(first, number - u32::from(number != u32::MAX))?;
        }
        first = number.saturating_add(1);
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers. The descriptors belong to nobody here: the caller promises that this program
    // has opened none yet, or that it will use none of them again.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
