//! Lines of limited length.

use std::io::{self, BufRead, BufReader, Read};

/// The lines of a stream, none longer than `limit` bytes.
pub struct Lines<R> {
    stream: BufReader<R>,
    limit: usize,
}

impl<R: Read> Lines<R> {
    /// Lines of `stream` of at most `limit` bytes, the end included.
    pub fn new(stream: R, limit: usize) -> Self {
        Self { stream: BufReader::with_capacity(4096, stream), limit }
    }

    /// The next line without its end; `None` when the stream has ended. A line that is too long, or that the
    /// end of the stream cuts off, is an error.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.stream).take(self.limit as u64).read_until(b'\n', &mut line)?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) if line.len() + 1 == self.limit => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of more than {} bytes", self.limit)))
            }
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_then_the_end() {
        let mut lines = Lines::new(&b"one\n\nthree\n"[..], 8);
        for line in ["one", "", "three"] {
            assert_eq!(lines.next().unwrap().unwrap(), line.as_bytes());
        }
        assert!(lines.next().unwrap().is_none());
    }

    #[test]
    fn a_line_without_an_end_is_read_up_to_the_limit_and_no_further() {
        let mut lines = Lines::new(io::repeat(b'x'), 1000);
        assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut lines = Lines::new(&b"1234567\n12345678\n"[..], 8);
        assert_eq!(lines.next().unwrap().unwrap(), b"1234567", "the end counts");
        assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_line() {
        let mut lines = Lines::new(&b"whole\ncut"[..], 100);
        assert!(lines.next().unwrap().is_some());
        assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
