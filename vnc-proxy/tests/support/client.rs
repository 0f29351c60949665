//! A viewer: plain RFB or websocket, synchronous.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio_tungstenite::tungstenite::{self, Message, WebSocket};
use yunju_protocol::display::Rect;

use super::decode::{Decoded, Decoder, Format, take, u16, u32};

/// How long a viewer waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection's bytes.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// What the server says.
#[derive(Debug, PartialEq)]
pub enum Said {
    Update(Decoded),
    EndOfContinuousUpdates,
    Fence { flags: u32, payload: Vec<u8> },
    Cut { extended: bool, content: Vec<u8> },
}

/// A viewer that has shaken hands.
pub struct Client {
    stream: Box<dyn Stream>,
    pub screen: Decoder,
    pub name: String,
    /// Whether fences are answered.
    pub answers: bool,
    /// Whether the server took no more at some time.
    pub broken: bool,
    /// What it was told of the clipboard while it waited for updates.
    pub cuts: Vec<Vec<u8>>,
}

impl Client {
    /// Connects to a plain listener.
    pub fn plain(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Self::shake_hands(Box::new(stream))
    }

    /// Connects to a websocket listener.
    pub fn websocket(path: &Path) -> io::Result<Self> {
        Self::shake_hands(Box::new(Messages::open(path)?))
    }

    /// Shakes hands on a connection.
    pub fn shake_hands(mut stream: Box<dyn Stream>) -> io::Result<Self> {
        assert_eq!(take(&mut stream, 12)?, b"RFB 003.008\n");
        stream.write_all(b"RFB 003.008\n")?;
        assert_eq!(take(&mut stream, 2)?, [1, 1], "one security type, none");
        stream.write_all(&[1])?;
        assert_eq!(take(&mut stream, 4)?, [0; 4]);
        stream.write_all(&[1])?;
        let (width, height) = (u16(&mut stream)?, u16(&mut stream)?);
        take(&mut stream, 16)?;
        let length = u32(&mut stream)?;
        let name = String::from_utf8_lossy(&take(&mut stream, length as usize)?).into_owned();
        Ok(Self {
            stream,
            screen: Decoder::new(width.into(), height.into()),
            name,
            answers: true,
            broken: false,
            cuts: Vec::new(),
        })
    }

    /// Sends bytes; [`Client::broken`] tells if they were not taken.
    pub fn send(&mut self, bytes: &[u8]) {
        self.broken |= self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_err();
    }

    pub fn set_encodings(&mut self, list: &[i32]) {
        let mut message = vec![2, 0];
        message.extend((list.len() as u16).to_be_bytes());
        message.extend(list.iter().flat_map(|encoding| encoding.to_be_bytes()));
        self.send(&message);
    }

    pub fn set_format(&mut self, format: Format) {
        let mut message = vec![0; 4];
        message.extend(format.wire());
        self.send(&message);
        self.screen.format = format;
    }

    pub fn request(&mut self, incremental: bool) {
        let area = Rect::of_size(self.screen.width, self.screen.height);
        self.send(&area_message(&[3, incremental.into()], area));
    }

    pub fn continuous(&mut self, enable: bool) {
        let area = Rect::of_size(self.screen.width, self.screen.height);
        self.send(&area_message(&[150, enable.into()], area));
    }

    pub fn scan_code(&mut self, keysym: u32, code: u32, down: bool) {
        let mut message = vec![255, 0, 0, down.into()];
        message.extend(keysym.to_be_bytes());
        message.extend(code.to_be_bytes());
        self.send(&message);
    }

    pub fn keysym(&mut self, keysym: u32, down: bool) {
        let mut message = vec![4, down.into(), 0, 0];
        message.extend(keysym.to_be_bytes());
        self.send(&message);
    }

    pub fn pointer(&mut self, x: u16, y: u16, buttons: u8) {
        let mut message = vec![5, buttons];
        message.extend(x.to_be_bytes());
        message.extend(y.to_be_bytes());
        self.send(&message);
    }

    pub fn wish(&mut self, width: u16, height: u16) {
        let mut message = vec![251, 0];
        message.extend(width.to_be_bytes());
        message.extend(height.to_be_bytes());
        message.extend([1, 0]);
        message.extend([0; 16]);
        self.send(&message);
    }

    /// Waits for what the server says next.
    pub fn next(&mut self) -> io::Result<Said> {
        match take(&mut self.stream, 1)?[0] {
            0 => Ok(Said::Update(self.screen.update(&mut self.stream)?)),
            3 => {
                take(&mut self.stream, 3)?;
                let length = u32(&mut self.stream)?.cast_signed();
                let content = take(&mut self.stream, length.unsigned_abs() as usize)?;
                Ok(Said::Cut { extended: length < 0, content })
            }
            150 => Ok(Said::EndOfContinuousUpdates),
            248 => {
                take(&mut self.stream, 3)?;
                let flags = u32(&mut self.stream)?;
                let length = take(&mut self.stream, 1)?[0];
                let payload = take(&mut self.stream, length.into())?;
                if self.answers && flags >> 31 == 1 {
                    let mut answer = vec![248, 0, 0, 0];
                    answer.extend((flags & 7).to_be_bytes());
                    answer.push(length);
                    answer.extend(&payload);
                    self.send(&answer);
                }
                Ok(Said::Fence { flags, payload })
            }
            other => panic!("unknown message {other}"),
        }
    }

    /// Waits for a clipboard message.
    #[allow(dead_code, reason = "not each user of this module does")]
    pub fn cut(&mut self) -> (bool, Vec<u8>) {
        loop {
            if let Said::Cut { extended, content } = self.next().expect("the server goes on") {
                return (extended, content);
            }
        }
    }

    /// Waits for an update.
    pub fn update(&mut self) -> Decoded {
        loop {
            match self.next().expect("the server goes on") {
                Said::Update(decoded) => return decoded,
                Said::Cut { content, .. } => self.cuts.push(content),
                _ => {}
            }
        }
    }

    /// Asks for updates until the picture is as it should be, and returns them.
    pub fn until(&mut self, as_it_should_be: impl Fn(&Decoder) -> bool) -> Vec<Decoded> {
        let mut updates = Vec::new();
        while !as_it_should_be(&self.screen) {
            self.request(true);
            updates.push(self.update());
        }
        updates
    }

    /// As [`Client::until`], for a viewer that need not ask.
    pub fn unasked_until(&mut self, as_it_should_be: impl Fn(&Decoder) -> bool) -> Vec<Decoded> {
        let mut updates = Vec::new();
        while !as_it_should_be(&self.screen) {
            updates.push(self.update());
        }
        updates
    }
}

fn area_message(start: &[u8], area: Rect) -> Vec<u8> {
    let mut message = start.to_vec();
    message.extend([area.x, area.y, area.width, area.height].iter().flat_map(|side| (*side as u16).to_be_bytes()));
    message
}

/// A websocket as a stream of bytes.
pub struct Messages {
    socket: WebSocket<UnixStream>,
    received: VecDeque<u8>,
    /// Why the server has closed.
    pub reason: Option<String>,
}

impl Messages {
    /// Opens a websocket, offering the subprotocols that old viewers offer.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_for(path, "/any/path?query")
    }

    /// The same for what `address` stands for.
    pub fn open_for(path: &Path, address: &str) -> io::Result<Self> {
        Self::open_as(path, address, &[])
    }

    /// The same with headers of the service's.
    pub fn open_as(path: &Path, address: &str, headers: &[(&'static str, &[u8])]) -> io::Result<Self> {
        use tungstenite::client::IntoClientRequest;
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("ws://desktop{address}").into_client_request().map_err(io::Error::other)?;
        let offer = tungstenite::http::HeaderValue::from_static("base64, binary");
        request.headers_mut().insert("Sec-WebSocket-Protocol", offer);
        for (name, value) in headers {
            let value = tungstenite::http::HeaderValue::from_bytes(value).map_err(io::Error::other)?;
            request.headers_mut().append(*name, value);
        }
        let (socket, response) =
            tungstenite::client(request, stream).map_err(|error| io::Error::other(error.to_string()))?;
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "binary");
        Ok(Self { socket, received: VecDeque::new(), reason: None })
    }

    /// Sends a message as it is.
    #[allow(dead_code, reason = "not each user of this module does")]
    pub fn say(&mut self, message: Message) -> io::Result<()> {
        self.socket.send(message).map_err(|error| io::Error::other(error.to_string()))
    }

    /// The next message as it is.
    #[allow(dead_code, reason = "not each user of this module does")]
    pub fn hear(&mut self) -> io::Result<Message> {
        self.socket.read().map_err(|error| io::Error::other(error.to_string()))
    }
}

impl Read for Messages {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.received.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.received.extend(bytes),
                Ok(Message::Close(frame)) => {
                    self.reason = frame.map(|frame| frame.reason.to_string());
                    return Ok(0);
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        self.received.read(buffer)
    }
}

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket
            .send(Message::Binary(bytes.to_vec().into()))
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
