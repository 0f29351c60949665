//! One listener's websocket.
//!
//! | the listener says | and is told |
//! |---|---|
//! | `listen opus`, `listen pcm` | `listen` and what it gets, then packets (binary, see [`super::packet`]) |
//! | `listen nothing` | the same; no more packets |
//! | `microphone on` | the same: binary messages are heard from now on, 16-bit little-endian samples, one channel |
//! | `microphone off` | the same; also when another listener's microphone is on |
//!
//! The rate is always 48 kHz. Who may not hear the machine is told so and hung up on; who may hear it but has no input there has no microphone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tracing::info;
use yunju_protocol::display::{MAX_MICROPHONE, MICROPHONE_FRAME, Request, SAMPLE_RATE};
use yunju_protocol::viewer::May;

use super::{Form, Listening, Sound};
use crate::transport::{self, STALLED, Websocket};

/// Bytes that a microphone says in a second; what it says beyond an eighth more is not heard.
const MICROPHONE_RATE: f64 = (SAMPLE_RATE as usize * MICROPHONE_FRAME) as f64;
/// Bytes that it may say at once: after a break of the network much comes together.
const BURST: f64 = MICROPHONE_RATE / 2.0;

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Why a listener was given up.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Transport(#[from] transport::Error),
    #[error("this viewer may not hear the desktop's sound")]
    NotAllowed,
    #[error("it said {0:?}, which no listener says")]
    Unknown(String),
    #[error("its microphone said {0} bytes at once; whole samples, at most {MAX_MICROPHONE} bytes, are heard")]
    Microphone(usize),
}

struct Session<'s> {
    stream: Websocket,
    may: May,
    sound: &'s Sound,
    machine: &'s mpsc::Sender<Request>,
    number: u64,
    listening: Option<Listening<'s>>,
    microphone: watch::Receiver<u64>,
    speaks: bool,
    /// Bytes that the microphone may say now.
    allowance: (f64, Instant),
}

/// Serves a listener until it goes or must be given up.
pub async fn serve(stream: Websocket, may: May, sound: &Sound, machine: &mpsc::Sender<Request>) {
    let mut session = Session {
        stream,
        may,
        sound,
        machine,
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        listening: None,
        microphone: sound.microphone.subscribe(),
        speaks: false,
        allowance: (BURST, Instant::now()),
    };
    let ended = session.run().await;
    session.switch_off();
    if let Err(error) = ended {
        info!("a listener has gone: {error}");
        // No reason of ours is longer than the 123 bytes that a close frame holds.
        let reason = if matches!(error, Error::NotAllowed) { error.to_string() } else { String::new() };
        let frame = CloseFrame { code: CloseCode::Policy, reason: reason.into() };
        // Who does not hear is cut off.
        drop(timeout(std::time::Duration::from_secs(1), session.stream.send(Message::Close(Some(frame)))).await);
    }
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        enum Next {
            Said(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
            Heard(Result<Bytes, RecvError>),
            OtherSpeaks,
        }
        if !self.may.sound {
            return Err(Error::NotAllowed);
        }
        loop {
            let next = tokio::select! {
                said = self.stream.next() => Next::Said(said),
                heard = hear(&mut self.listening) => Next::Heard(heard),
                // Its sender lives as long as the sound.
                _ = self.microphone.wait_for(|number| *number != self.number), if self.speaks => Next::OtherSpeaks,
            };
            match next {
                Next::Said(None) => return Err(transport::Error::Closed.into()),
                Next::Said(Some(message)) => self.obey(message.map_err(transport::Error::from)?).await?,
                Next::Heard(Ok(packet)) => self.send(Message::Binary(packet)).await?,
                // What it was too slow for is lost.
                Next::Heard(Err(_)) => {}
                Next::OtherSpeaks => {
                    self.speaks = false;
                    self.say("microphone off").await?;
                }
            }
        }
    }

    async fn obey(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Text(text) => match text.as_str() {
                "listen opus" => self.listen(Form::Opus).await,
                "listen pcm" => self.listen(Form::Pcm).await,
                "listen nothing" => {
                    self.listening = None;
                    self.say("listen nothing").await
                }
                "microphone on" if !self.may.input => self.say("microphone off").await,
                "microphone on" => {
                    self.sound.microphone.send_replace(self.number);
                    self.speaks = true;
                    self.say("microphone on").await
                }
                "microphone off" => {
                    self.switch_off();
                    self.say("microphone off").await
                }
                other => Err(Error::Unknown(other.chars().take(40).collect())),
            },
            Message::Binary(samples) => self.speak(&samples),
            Message::Close(_) => Err(transport::Error::Closed.into()),
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    async fn listen(&mut self, form: Form) -> Result<(), Error> {
        let listening = self.sound.listen(form);
        let answer = match listening.form {
            Form::Opus => "listen opus",
            Form::Pcm => "listen pcm",
        };
        self.listening = Some(listening);
        self.say(answer).await
    }

    fn speak(&mut self, samples: &[u8]) -> Result<(), Error> {
        if samples.len() > MAX_MICROPHONE || !samples.len().is_multiple_of(MICROPHONE_FRAME) {
            return Err(Error::Microphone(samples.len()));
        }
        let now = Instant::now();
        let (left, then) = self.allowance;
        let left = (left + (now - then).as_secs_f64() * MICROPHONE_RATE * 1.125).min(BURST);
        let heard = self.speaks && samples.len() as f64 <= left;
        self.allowance = (if heard { left - samples.len() as f64 } else { left }, now);
        if heard {
            // A machine that takes nothing now will not want it later.
            drop(self.machine.try_send(Request::Microphone { samples: samples.to_vec() }));
        }
        Ok(())
    }

    fn switch_off(&mut self) {
        self.speaks = false;
        self.sound.microphone.send_if_modified(|number| {
            let own = *number == self.number;
            *number = if own { 0 } else { *number };
            own
        });
    }

    async fn say(&mut self, text: &'static str) -> Result<(), Error> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Error> {
        let sent = timeout(STALLED, self.stream.send(message)).await.map_err(|_| transport::Error::Stalled)?;
        Ok(sent.map_err(transport::Error::from)?)
    }
}

async fn hear(listening: &mut Option<Listening<'_>>) -> Result<Bytes, RecvError> {
    match listening {
        Some(listening) => listening.packets.recv().await,
        None => std::future::pending().await,
    }
}
