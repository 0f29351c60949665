//! A listener's websocket for sound: all that it sends at once, after a good opening, while the machine plays. The first byte says
//! how much.
#![no_main]

use std::sync::LazyLock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use yunju_protocol::display::{MAX_MICROPHONE, Request};
use yunju_vnc_proxy::audio::{Sound, session};
use yunju_vnc_proxy::transport::{self, Purpose};

const OPENING: &[u8] = b"GET /audio HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    RUNTIME.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut hear, mut say) = tokio::io::split(theirs);
        let (machine, mut requests) = mpsc::channel(16);
        let sound = Sound::default();
        // Bytes right behind the opening are refused with it: they come later.
        let opened = tokio::sync::Notify::new();
        let listener = async {
            // The proxy may hang up in the middle.
            let _ = say.write_all(OPENING).await;
            opened.notified().await;
            let _ = say.write_all(rest).await;
            let _ = say.shutdown().await;
            let _ = hear.read_to_end(&mut Vec::new()).await;
        };
        let proxy = async {
            let (purpose, viewer, stream) = transport::websocket(ours).await.unwrap();
            opened.notify_one();
            assert_eq!(purpose, Purpose::Sound);
            session::serve(stream, viewer.may, &sound, &machine).await;
        };
        let plays = async {
            for packet in 0..u64::from(*first) {
                sound.heard(packet * 20_000, &[*first; 3840]);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(listener, proxy, plays);
        assert_eq!(*sound.listeners().borrow(), 0);
        while let Ok(request) = requests.try_recv() {
            let Request::Microphone { samples } = request else { panic!("{request:?}") };
            assert!(samples.len() <= MAX_MICROPHONE && samples.len() % 2 == 0);
        }
    });
});
