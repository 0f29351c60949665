//! Sound.

use alloc::vec;

use guest::params::BootParams;
use guest::println;
use guest::virtio::snd::Card;

use crate::{During, Outcome, ensure};

/// Frames of ten milliseconds.
const FRAMES: usize = 480;
/// What the host says into the microphone.
const WORD: i16 = 0x1234;
/// Messages that are played if the command line does not say how many, and most that are recorded.
const PLAYED: i16 = 200;
const RECORDED: usize = 3000;

/// Plays two seconds, or as many `messages=` of 10 ms, in each message its number on the left and the negative of it on the right; then records until
/// the microphone says the word, and until it is silent again.
pub fn both_ways(params: &BootParams) -> Outcome {
    let played = params.option("messages").and_then(|count| count.parse().ok()).unwrap_or(PLAYED);
    let mut card = Card::open().during("sound")?;
    println!("PLAYING");
    let mut speaker = card.start(0).during("playing")?;
    for number in 1..=played {
        speaker.give([number, -number].repeat(FRAMES));
        if speaker.waiting() == 8 {
            speaker.take().during("playing")?;
        }
    }
    while speaker.waiting() > 4 {
        speaker.take().during("playing")?;
    }
    speaker.end().during("end of playing")?;
    let mut microphone = card.start(1).during("recording")?;
    println!("RECORDING");
    let mut spoken = false;
    for _ in 0..RECORDED {
        while microphone.waiting() < 8 {
            microphone.give(vec![-1; FRAMES]);
        }
        let heard = microphone.take().during("recording")?;
        ensure!(heard.iter().all(|sample| [0, WORD].contains(sample)), "strange sounds: {:x?}", &heard[..8]);
        let speaks = heard[FRAMES - 1] == WORD;
        if speaks && !spoken {
            println!("HEARD");
        } else if spoken && heard.iter().all(|sample| *sample == 0) {
            return microphone.end().during("end of recording");
        }
        spoken |= speaks;
    }
    Err(alloc::format!("the word did not come and go in {RECORDED} messages").into())
}
