//! The service's end of a guest's agent, told anything.
#![no_main]
#![allow(missing_docs)]

#[path = "../../manager/src/machines/agent/talk.rs"]
mod talk;

use talk::{Next, Talk};
use tokio::io::BufReader;
use yunju_protocol::agent::{LONGEST_LINE, ToAgent, ToHost};

const ID: &str = "0d9cb1f6-5b3c-4b0e-9a55-2f5f3c1f0a11";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(listen(data));
});

/// Lines until they end the connection: it is told who it is once, after hello, and known once, after it said so.
async fn listen(data: &[u8]) {
    let mut reader = BufReader::with_capacity(4096, data);
    let mut talk = Talk::new(ID.to_owned(), "dev".to_owned());
    let (mut told, mut known) = (false, false);
    while let Ok(line) = talk::line(&mut reader).await {
        assert!(line.len() <= LONGEST_LINE && line.ends_with(b"\n"));
        let Ok(next) = talk.hear(&line) else { return };
        let said = serde_json::from_slice::<ToHost>(&line).unwrap();
        match next {
            Next::Say(answer) => {
                assert!(!told && matches!(said, ToHost::Hello { .. }));
                let ToAgent::Identity { id, .. } = serde_json::from_slice(&answer).unwrap();
                assert_eq!((id.as_str(), answer.last()), (ID, Some(&b'\n')));
                told = true;
            }
            Next::Known(version) => {
                assert!(told && !known && said == ToHost::Identity { id: ID.to_owned() });
                assert!(version.chars().count() <= 40 && !version.contains(char::is_control));
                known = true;
            }
            Next::Listen => assert!(known),
        }
        assert_eq!(talk.waits(), !known);
    }
}
