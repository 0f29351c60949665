//! Entropy device (virtio 1.2 §5.4): fills buffers with random bytes of the host's kernel.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Chain, ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError};

/// Most random bytes for one request; a driver that wants more asks again (§5.4.6.2 allows less than asked for).
const MOST: usize = 4096;

/// A source of entropy. It has no state: a restored machine must never see the same bytes again.
#[derive(Default)]
pub struct Rng;

impl Rng {
    /// A source of entropy.
    pub fn new() -> Self {
        Self
    }
}

/// Fills the chain and returns how many bytes of it were written.
fn fill(chain: &mut Chain<'_>) -> io::Result<u32> {
    let mut bytes = [0; MOST];
    let length = chain.writer.available_bytes().min(MOST);
    // A signal may cut the call short: what is there is given.
    let filled = getrandom(&mut bytes[..length], GetRandomFlags::empty())?;
    chain.writer.write_all(&bytes[..filled])?;
    Ok(filled as u32)
}

impl Device for Rng {
    fn kind(&self) -> Kind {
        Kind::Entropy
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[64]
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        Arc::new(Mutex::new(Vec::new()))
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[index];
        let memory = queue.memory().clone();
        while let Some(mut chain) = queue.pop(&memory)? {
            let written = fill(&mut chain)?;
            queue.push(chain.head, written)?;
            queue.signal()?;
        }
        Ok(())
    }

    fn save(&self) -> DeviceState {
        DeviceState::Rng
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        match state {
            DeviceState::Rng => Ok(()),
            other => Err(StateError(format!("{other:?} instead of an entropy device's"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::super::testing::{Driver, MEMORY, WRITE};
    use super::*;

    #[test]
    fn a_buffer_is_filled_with_bytes_that_never_repeat() {
        let mut rng = Rng::new();
        let mut driver = Driver::new(&rng);
        let first = driver.request(&mut rng, 0, &[], 64);
        let second = driver.request(&mut rng, 0, &[], 64);
        assert!(first != second && first != [0; 64] && second != [0; 64]);
        assert!(driver.interrupted());
    }

    #[test]
    fn a_request_for_more_than_the_bound_gets_the_bound() {
        let mut rng = Rng::new();
        let mut driver = Driver::new(&rng);
        let head = driver.send(0, &[], &[100, 1 << 20]);
        driver.kick(&mut rng, 0).unwrap();
        assert_eq!(driver.used(0), Some((head, MOST as u32)));
        let written = driver.written(0, head);
        assert!(written[MOST..].iter().all(|byte| *byte == 0), "nothing beyond the reported length is touched");
    }

    #[test]
    fn a_request_without_room_is_given_back_empty() {
        let mut rng = Rng::new();
        let mut driver = Driver::new(&rng);
        let head = driver.send(0, &[b"readable"], &[]);
        driver.kick(&mut rng, 0).unwrap();
        assert_eq!(driver.used(0), Some((head, 0)));
    }

    #[test]
    fn there_is_no_state_to_carry_over() {
        let mut rng = Rng::new();
        let text = serde_json::to_string(&rng.save()).unwrap();
        assert_eq!(rng.restore(serde_json::from_str(&text).unwrap()), Ok(()));
    }

    proptest! {
        #[test]
        fn no_chain_harms_the_device(chain in prop::collection::vec((0..MEMORY * 2, any::<u32>(), 0u16..8), 1..8)) {
            let mut rng = Rng::new();
            let mut driver = Driver::new(&rng);
            driver.send_raw(0, &chain);
            let _ = driver.kick(&mut rng, 0);
            // The rings lie in low memory, where a hostile chain may point too: a fresh driver proves that the device lives.
            let mut driver = Driver::new(&rng);
            let address = driver.room(16);
            driver.send_raw(0, &[(address, 16, WRITE)]);
            driver.kick(&mut rng, 0).unwrap();
            prop_assert_eq!(driver.used(0).map(|(_, length)| length), Some(16));
        }
    }
}
