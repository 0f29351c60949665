//! The connection to the machine's proxy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::desktop::Desktop;
use super::protocol::{FromSeat, ToSeat, frame, parse};
use crate::PAUSE;

/// A host that takes nothing for this long is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to the proxy, if there is one now.
#[derive(Default)]
pub struct Host {
    stream: Mutex<Option<File>>,
}

impl Host {
    /// Says something; without a proxy it is not heard.
    pub fn say(&self, head: &FromSeat, body: &[u8]) -> io::Result<()> {
        let mut stream = self.stream();
        match &mut *stream {
            Some(to) => to.write_all(&frame(head, body)),
            None => Ok(()),
        }
    }

    /// Hangs up, which the thread that reads finds out.
    pub fn hang_up(&self) {
        if let Some(stream) = self.stream().take() {
            let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
        }
    }

    fn stream(&self) -> MutexGuard<'_, Option<File>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what the proxy says, over as many connections as it takes, until the desktop is gone.
pub fn serve(desktop: &Desktop, connect: impl Fn() -> io::Result<File>) {
    let mut pause = PAUSE.0;
    while desktop.is_there() {
        // When nobody listens, or the machine has no vsock, nobody wants to know.
        if let Ok(stream) = connect() {
            let begun = Instant::now();
            let end = attend(stream, desktop);
            desktop.host.hang_up();
            match end {
                Ok(()) => eprintln!("yunju-agent: the proxy has hung up"),
                Err(error) => eprintln!("yunju-agent: the connection to the proxy ended: {error}"),
            }
            if begun.elapsed() > PAUSE.1 {
                pause = PAUSE.0;
            }
        }
        sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn attend(mut from: File, desktop: &Desktop) -> io::Result<()> {
    set_socket_timeout(&from, Timeout::Send, Some(PATIENCE))?;
    *desktop.host.stream() = Some(from.try_clone()?);
    let (clipboard, text) = desktop.abilities();
    desktop.host.say(&FromSeat::Hello { version: env!("CARGO_PKG_VERSION").to_owned(), clipboard, text }, b"")?;
    hear(&mut from, |head, body| {
        if let Err(error) = desktop.obey(head, body) {
            eprintln!("yunju-agent: could not do what the proxy asks for: {error}");
        }
    })
}

/// Reads frames until the stream ends.
fn hear(from: &mut impl Read, mut obey: impl FnMut(ToSeat, &[u8])) -> io::Result<()> {
    let mut received = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        while let Some((head, body)) = parse::<ToSeat>(&received).map_err(io::Error::other)? {
            let end = body.end;
            obey(head, &received[body]);
            received.drain(..end);
        }
        // What a large clip took is given back.
        received.shrink_to(piece.len());
        match from.read(&mut piece)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::seat::{Kind, Layout};

    #[test]
    fn frames_are_obeyed_in_their_order_and_nonsense_ends_it() {
        let layout = ToSeat::Layout(Layout { layout: "de".into(), variant: String::new() });
        let clip = ToSeat::Clip { kind: Kind::Text, length: 3 };
        let stream = [frame(&layout, b""), frame(&clip, b"a\nb"), b"nonsense\n".to_vec(), frame(&layout, b"")].concat();
        let mut heard = Vec::new();
        let end = hear(&mut &stream[..], |head, body| heard.push((head, body.to_vec())));
        assert!(end.is_err());
        assert_eq!(heard, [(layout, vec![]), (clip, b"a\nb".to_vec())]);
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        assert!(hear(&mut io::repeat(b'x'), |_, _| panic!("nothing was said")).is_err());
    }
}
