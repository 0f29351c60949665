//! A viewer's websocket, from the opening request on: all that it sends at once. The highest bit of the first byte
//! puts a good request before.
#![no_main]

use std::sync::LazyLock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use yunju_vnc_proxy::transport;

const OPENING: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().unwrap());

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    RUNTIME.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut hear, mut say) = tokio::io::split(theirs);
        let viewer = async {
            let opening = if first & 0x80 != 0 { OPENING } else { &[] };
            // The proxy may hang up in the middle.
            let _ = say.write_all(opening).await;
            let _ = say.write_all(rest).await;
            let _ = say.shutdown().await;
            let _ = hear.read_to_end(&mut Vec::new()).await;
        };
        let proxy = async {
            if let Ok((_, _, stream)) = transport::websocket(ours).await {
                let (mut source, sink) = transport::over_websocket(stream);
                let mut bytes = Vec::new();
                while source.read(&mut bytes).await.is_ok() {}
                assert!(bytes.len() <= rest.len());
                drop(sink);
            }
        };
        tokio::join!(viewer, proxy);
    });
});
