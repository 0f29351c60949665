//! Keyboard and tablet.

use guest::params::BootParams;
use guest::virtio::input::{Input, event, select};
use guest::virtio::{Transport, kind};
use guest::{interrupt, println};

use crate::{During, Outcome, ensure};

const ESCAPE: u16 = 1;
const CAPS_LOCK: u16 = 1;

/// Lights caps lock, then prints every event until Escape is released.
pub fn events(_: &BootParams) -> Outcome {
    let mut inputs = alloc::vec::Vec::new();
    for transport in Transport::all().filter(|t| t.kind() == kind::INPUT) {
        let input = Input::start(transport).during("input")?;
        let name = input.ask(select::NAME, 0);
        println!("input {} {:?}", inputs.len(), core::str::from_utf8(&name).unwrap_or("?"));
        inputs.push(input);
    }
    ensure!(inputs.len() == 2, "{} input devices", inputs.len());
    ensure!(inputs.iter().filter(|input| input.has(event::ABSOLUTE)).count() == 1, "there is not one tablet");
    let Some(keyboard) = inputs.iter().position(|input| input.has(event::LED)) else {
        return Err(alloc::string::String::from("no input device has lamps").into());
    };
    inputs[keyboard].set_led(CAPS_LOCK, true).during("caps lock")?;
    println!("READY");
    loop {
        let (from, event) =
            interrupt::wait(|| inputs.iter_mut().enumerate().find_map(|(at, input)| Some((at, input.next_event()?))));
        println!("EVENT {from} {} {} {}", event.kind, event.code, event.value);
        if (event.kind, event.code, event.value) == (event::KEY, ESCAPE, 0) {
            return Ok(());
        }
    }
}
