//! Who an input device says it is (virtio 1.2 §5.8.4, §5.8.5).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use yunju_protocol::display::POINTER_MAX;

use super::{
    ABS_X, ABS_Y, BTN_EXTRA, BTN_LEFT, BTN_MIDDLE, BTN_RIGHT, BTN_SIDE, EV_ABS, EV_KEY, EV_LED, EV_REL, EV_REP, KEYS,
    LEDS, REL_HWHEEL, REL_HWHEEL_HI_RES, REL_WHEEL, REL_WHEEL_HI_RES, REL_X, REL_Y,
};
use crate::devices::virtio::{ConfigSpace, read_config};

const CFG_ID_NAME: u8 = 0x01;
const CFG_ID_SERIAL: u8 = 0x02;
const CFG_ID_DEVIDS: u8 = 0x03;
const CFG_EV_BITS: u8 = 0x11;
const CFG_ABS_INFO: u8 = 0x12;

/// `BUS_VIRTUAL`, as every virtio input device.
const BUS_VIRTUAL: u16 = 0x06;
/// "YJ", little-endian.
const VENDOR: u16 = 0x4a59;
const DEVICE_VERSION: u16 = 1;

/// Where the answer begins.
const ANSWER: usize = 8;

/// What a device is, in the order of the questions that a driver asks.
struct Identity {
    name: &'static str,
    serial: &'static str,
    product: u16,
    /// Codes by event type; one without codes is offered all the same.
    codes: Vec<(u16, Vec<u16>)>,
}

/// The configuration space: the driver selects a question and reads the answer.
pub struct Config {
    identity: Identity,
    select: u8,
    subsel: u8,
}

impl Config {
    /// A keyboard's.
    pub fn keyboard() -> Arc<Mutex<Self>> {
        let leds = LEDS.iter().map(|(code, _)| *code).collect();
        Self::new(Identity {
            name: "Yunju Keyboard",
            serial: "yunju-keyboard",
            product: 1,
            codes: vec![(EV_KEY, KEYS.collect()), (EV_LED, leds), (EV_REP, Vec::new())],
        })
    }

    /// A tablet's. It has no properties: a device with absolute axes and a mouse's buttons is an absolute
    /// pointer to udev and libinput, which also take its steps, for programs that lock the pointer.
    pub fn tablet() -> Arc<Mutex<Self>> {
        Self::new(Identity {
            name: "Yunju Tablet",
            serial: "yunju-tablet",
            product: 2,
            codes: vec![
                (EV_KEY, vec![BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA]),
                (EV_REL, vec![REL_X, REL_Y, REL_HWHEEL, REL_WHEEL, REL_WHEEL_HI_RES, REL_HWHEEL_HI_RES]),
                (EV_ABS, vec![ABS_X, ABS_Y]),
            ],
        })
    }

    fn new(identity: Identity) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { identity, select: 0, subsel: 0 }))
    }

    /// Asks another question.
    pub fn select(&mut self, select: u8, subsel: u8) {
        (self.select, self.subsel) = (select, subsel);
    }

    /// The question asked last.
    pub fn selected(&self) -> (u8, u8) {
        (self.select, self.subsel)
    }

    /// The answer, at most 128 bytes; none to a question that makes no sense for the device.
    fn answer(&self) -> Vec<u8> {
        let Identity { name, serial, product, .. } = &self.identity;
        match (self.select, u16::from(self.subsel)) {
            (CFG_ID_NAME, 0) => name.as_bytes().to_vec(),
            (CFG_ID_SERIAL, 0) => serial.as_bytes().to_vec(),
            (CFG_ID_DEVIDS, 0) => {
                [BUS_VIRTUAL, VENDOR, *product, DEVICE_VERSION].iter().flat_map(|id| id.to_le_bytes()).collect()
            }
            (CFG_EV_BITS, kind) => self.codes(kind).map(bits).unwrap_or_default(),
            (CFG_ABS_INFO, axis) if self.codes(EV_ABS).is_some_and(|axes| axes.contains(&axis)) => {
                // Least, greatest, fuzz, flat, resolution.
                [0, u32::from(POINTER_MAX), 0, 0, 0].iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn codes(&self, kind: u16) -> Option<&[u16]> {
        self.identity.codes.iter().find(|(own, _)| *own == kind).map(|(_, codes)| codes.as_slice())
    }
}

/// A bitmap as long as needed, one byte at least.
fn bits(codes: &[u16]) -> Vec<u8> {
    let last = codes.iter().max().copied().unwrap_or(0);
    let mut bytes = vec![0; usize::from(last) / 8 + 1];
    for code in codes {
        bytes[usize::from(code / 8)] |= 1 << (code % 8);
    }
    bytes
}

impl ConfigSpace for Config {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let answer = self.answer();
        let mut space = vec![0; ANSWER];
        // An answer of 128 bytes at most fits in the size's byte: codes are below 0x300.
        space[..3].copy_from_slice(&[self.select, self.subsel, answer.len() as u8]);
        space.extend(answer);
        read_config(&space, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (position, byte) in data.iter().enumerate() {
            match offset.saturating_add(position as u64) {
                0 => self.select = *byte,
                1 => self.subsel = *byte,
                _ => {}
            }
        }
    }
}

/// Locks a configuration space that no panic can leave half changed.
pub fn lock(config: &Mutex<Config>) -> MutexGuard<'_, Config> {
    config.lock().unwrap_or_else(PoisonError::into_inner)
}
