//! The guest's agent and pages of browsers, as the proxy's side channel knows them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use yunju_protocol::page::ToPage;
use yunju_protocol::seat::{FromSeat, Head, frame, parse};

use super::client::Messages;
use super::lab::Lab;

/// One end of a stream of frames.
pub struct Frames<S> {
    pub stream: S,
    received: Vec<u8>,
}

impl<S: Read + Write> Frames<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub fn say(&mut self, head: &impl Head, body: &[u8]) {
        // A frame is not bound to messages of a websocket, which are at most 1 MiB long.
        for piece in frame(head, body).chunks(500_000) {
            self.stream.write_all(piece).expect("the proxy goes on");
            self.stream.flush().expect("the proxy goes on");
        }
    }

    pub fn try_hear<H: Head>(&mut self) -> io::Result<(H, Vec<u8>)> {
        loop {
            if let Some((head, body)) = parse(&self.received).expect("the proxy goes on") {
                let bytes = self.received[body.clone()].to_vec();
                self.received.drain(..body.end);
                return Ok((head, bytes));
            }
            let mut piece = vec![0; 64 << 10];
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend(&piece[..count]);
        }
    }

    pub fn hear<H: Head>(&mut self) -> (H, Vec<u8>) {
        self.try_hear().expect("the proxy goes on")
    }
}

pub type Agent = Frames<UnixStream>;
pub type Page = Frames<Messages>;

pub fn agent(lab: &Lab) -> Agent {
    let stream = UnixStream::connect(lab.path("agent")).expect("the proxy goes on");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("the proxy goes on");
    let mut agent = Frames::new(stream);
    agent.say(&FromSeat::Hello { version: "1".into(), clipboard: true, text: true }, b"");
    agent
}

pub fn page(lab: &Lab) -> Page {
    Frames::new(Messages::open_for(&lab.path("websocket"), "/io").expect("the proxy goes on"))
}

/// A page that knows that the agent is there.
pub fn page_with_agent(lab: &Lab) -> Page {
    let mut page = page(lab);
    while !matches!(page.hear::<ToPage>().0, ToPage::Able { agent: true, .. }) {}
    page
}
