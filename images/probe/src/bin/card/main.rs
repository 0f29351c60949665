//! The test card: a small desktop that shows what reaches it. See README.md for what is where.
#![no_std]
#![no_main]

extern crate alloc;

mod boots;
mod scene;
mod screen;
mod state;

use guest::virtio::input::{Input, event};
use guest::virtio::{Error, Transport, kind};
use guest::{entry, interrupt, port, println};
use scene::Scene;
use screen::Screen;
use state::State;

entry!(main);

const POWER_BUTTON: u32 = 5;

fn main() -> ! {
    if let Err(error) = run() {
        println!("CARD FAIL {error}");
    }
    port::power_off()
}

fn run() -> Result<(), Error> {
    interrupt::route_line(POWER_BUTTON, 0);
    let boots = boots::count();
    let mut screen = Screen::open()?;
    let (mut keyboard, mut tablet) = input_devices()?;
    let (width, height) = screen.size();
    let mut state = State::new(width, height, boots, pointer_range(&tablet));
    screen.paint_all(&Scene::of(&state))?;
    match boots {
        Some(count) => println!("CARD READY {width}x{height} boot {count}"),
        None => println!("CARD READY {width}x{height}"),
    }
    loop {
        interrupt::wait(|| {
            let mut woken = interrupt::line_count(POWER_BUTTON) > 0;
            woken |= screen.wants_resize();
            while let Some(event) = keyboard.next_event() {
                woken |= state.key(event);
            }
            while let Some(event) = tablet.next_event() {
                woken |= state.pointer(event);
            }
            woken.then_some(())
        });
        if interrupt::line_count(POWER_BUTTON) > 0 {
            println!("CARD OFF");
            return Ok(());
        }
        if let Some((width, height)) = screen.resize()? {
            state.resize(width, height);
            screen.paint_all(&Scene::of(&state))?;
            println!("CARD SIZE {width}x{height}");
        }
        let changes = state.take_changes();
        let scene = Scene::of(&state);
        for area in changes.areas() {
            screen.paint(&scene, area)?;
        }
        if changes.pointer {
            screen.move_cursor(state.x, state.y)?;
        }
        if changes.lamps {
            for led in 0..3 {
                keyboard.set_led(led, state.lamps >> led & 1 == 1)?;
            }
        }
    }
}

/// The keyboard and the tablet, whichever slot they are in.
fn input_devices() -> Result<(Input, Input), Error> {
    let (mut keyboard, mut tablet) = (None, None);
    for transport in Transport::all().filter(|t| t.kind() == kind::INPUT) {
        let input = Input::start(transport)?;
        let place = if input.has(event::ABSOLUTE) { &mut tablet } else { &mut keyboard };
        *place = Some(input);
    }
    keyboard.zip(tablet).ok_or(Error::Absent)
}

/// The greatest value of each axis.
fn pointer_range(tablet: &Input) -> (u32, u32) {
    let range = |axis| {
        let info = tablet.ask(guest::virtio::input::select::ABSOLUTE_INFO, axis);
        info.get(4..8).map_or(32767, |max| u32::from_le_bytes([max[0], max[1], max[2], max[3]])).max(1)
    };
    (range(0), range(1))
}
