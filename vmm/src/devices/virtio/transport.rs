//! Memory-mapped registers, version 2 (virtio 1.2 §4.2.2), and the life of the device behind them.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue as Ring, QueueState, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::worker::Worker;
use super::{ConfigSpace, Device, DeviceState, Interrupt, Io, Kind, Queue, StateError};
use crate::bus::BusDevice;
use crate::layout;
use crate::memory::GuestMemory;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "YUNJ", little-endian.
const VENDOR: u32 = 0x4a4e_5559;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

const F_INDIRECT_DESC: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;

/// Offset of the register that the driver writes a queue's number to.
pub const QUEUE_NOTIFY: u64 = 0x50;
const CONFIG: u64 = 0x100;

/// Where the device is.
enum Engine {
    /// No driver.
    Idle(Box<dyn Device>),
    /// On its thread.
    Running(Worker),
    /// Between [`Transport::pause`] and [`Transport::resume`].
    Parked(Box<dyn Device>, Io),
    /// Its thread could not be started or panicked: the device answers no more.
    Lost,
}

/// One device's registers.
pub struct Transport {
    engine: Engine,
    kind: Kind,
    offered: u64,
    config: Arc<Mutex<dyn ConfigSpace>>,
    rings: Vec<Ring>,
    kicks: Vec<EventFd>,
    memory: Arc<GuestMemory>,
    interrupt: Interrupt,
    needs_reset: Arc<AtomicBool>,
    registers: Registers,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u32,
    accepted: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
}

/// The whole state of a device and its registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    registers: Registers,
    interrupt_status: u32,
    needs_reset: bool,
    queues: Vec<RingState>,
    device: DeviceState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RingState {
    size: u16,
    ready: bool,
    event_idx: bool,
    next_avail: u16,
    next_used: u16,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Transport {
    /// Puts registers in front of a device. `line` raises its interrupt.
    pub fn new(device: Box<dyn Device>, memory: Arc<GuestMemory>, line: EventFd) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        let rings = sizes.iter().map(|size| Ring::new(*size).map_err(io::Error::other)).collect::<Result<_, _>>()?;
        let kicks =
            sizes.iter().map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)).collect::<Result<_, _>>()?;
        Ok(Self {
            kind: device.kind(),
            offered: device.features() | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC,
            config: device.config(),
            engine: Engine::Idle(device),
            rings,
            kicks,
            memory,
            interrupt: Interrupt::new(line),
            needs_reset: Arc::default(),
            registers: Registers::default(),
        })
    }

    /// The events that a write of a queue's number to [`QUEUE_NOTIFY`] must signal.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Which device it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Stops the device between two pieces of work. Idempotent.
    pub fn pause(&mut self) {
        self.engine = match std::mem::replace(&mut self.engine, Engine::Lost) {
            Engine::Running(worker) => match worker.stop() {
                Ok((device, io)) => Engine::Parked(device, io),
                Err(error) => self.lost(&error),
            },
            engine => engine,
        };
    }

    /// Lets a paused device go on. Idempotent.
    pub fn resume(&mut self) {
        self.engine = match std::mem::replace(&mut self.engine, Engine::Lost) {
            Engine::Parked(device, io) => match Worker::start(device, io, self.needs_reset.clone()) {
                Ok(worker) => Engine::Running(worker),
                Err(error) => self.lost(&error),
            },
            engine => engine,
        };
    }

    /// See [`Device::new_layer`]. The device is then paused, or idle if it was.
    pub fn new_layer(&mut self, file: File) -> io::Result<()> {
        self.pause();
        match &mut self.engine {
            Engine::Idle(device) | Engine::Parked(device, _) => device.new_layer(file),
            Engine::Running(_) | Engine::Lost => Err(io::Error::other("the device is lost")),
        }
    }

    /// See [`Device::flush`]. The device is then paused, or idle if it was.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pause();
        match &mut self.engine {
            Engine::Idle(device) | Engine::Parked(device, _) => device.flush(),
            Engine::Running(_) | Engine::Lost => Err(io::Error::other("the device is lost")),
        }
    }

    /// Pauses the device and does its work of one turn on the caller's thread: for fuzzing, where each input must
    /// have the same effect each time.
    #[doc(hidden)]
    pub fn turn(&mut self) {
        self.pause();
        if let Engine::Parked(device, io) = &mut self.engine
            && !self.needs_reset.load(Ordering::SeqCst)
            && super::worker::turn(device.as_mut(), io).is_err()
        {
            self.needs_reset.store(true, Ordering::SeqCst);
        }
    }

    /// The state of a paused or idle device; `None` of a lost one.
    pub fn save(&mut self) -> Option<TransportState> {
        self.pause();
        let (device, rings) = match &self.engine {
            Engine::Idle(device) => (device, self.rings.iter().map(Ring::state).collect::<Vec<_>>()),
            Engine::Parked(device, io) => (device, io.queues.iter().map(|queue| queue.ring.state()).collect()),
            Engine::Running(_) | Engine::Lost => return None,
        };
        Some(TransportState {
            registers: self.registers.clone(),
            interrupt_status: self.interrupt.status(),
            needs_reset: self.needs_reset.load(Ordering::SeqCst),
            queues: rings.iter().map(RingState::from).collect(),
            device: device.save(),
        })
    }

    /// Takes a saved state on; the device is then paused, or idle if it was.
    pub fn restore(&mut self, state: TransportState) -> Result<(), StateError> {
        self.reset();
        let Engine::Idle(device) = &mut self.engine else {
            return Err(StateError("the device is lost".into()));
        };
        if state.queues.len() != self.rings.len() {
            return Err(StateError(format!("{} queues instead of {}", state.queues.len(), self.rings.len())));
        }
        for (ring, saved) in self.rings.iter_mut().zip(&state.queues) {
            *ring = saved.ring(ring.max_size())?;
        }
        device.restore(state.device)?;
        self.registers = state.registers;
        self.interrupt.set_status(state.interrupt_status);
        self.needs_reset.store(state.needs_reset, Ordering::SeqCst);
        if self.registers.status & DRIVER_OK != 0 {
            self.engine = match std::mem::replace(&mut self.engine, Engine::Lost) {
                Engine::Idle(mut device) => {
                    device.activate(self.registers.accepted);
                    let io = self.io().map_err(|error| StateError(error.to_string()))?;
                    Engine::Parked(device, io)
                }
                engine => engine,
            };
        }
        // The interrupt may have been on its way. One too many tells a driver nothing; one too few, nothing for ever.
        if state.interrupt_status != 0 {
            self.interrupt.repeat().map_err(|error| StateError(error.to_string()))?;
        }
        Ok(())
    }

    /// Back to the state before the driver came.
    pub fn reset(&mut self) {
        self.pause();
        self.engine = match std::mem::replace(&mut self.engine, Engine::Lost) {
            Engine::Idle(mut device) | Engine::Parked(mut device, _) => {
                device.reset();
                Engine::Idle(device)
            }
            engine => engine,
        };
        self.rings.iter_mut().for_each(Ring::reset);
        for kick in &self.kicks {
            // Drops notifications of the driver that is gone; an empty counter is the usual case.
            let _ = kick.read();
        }
        self.interrupt.set_status(0);
        self.needs_reset.store(false, Ordering::SeqCst);
        self.registers = Registers::default();
    }

    fn lost(&self, error: &io::Error) -> Engine {
        eprintln!("yunju-vmm: virtio {:?} is lost: {error}", self.kind);
        self.needs_reset.store(true, Ordering::SeqCst);
        Engine::Lost
    }

    fn io(&self) -> io::Result<Io> {
        let event_idx = self.registers.accepted & F_EVENT_IDX != 0;
        let queues = self.rings.iter().zip(&self.kicks).map(|(ring, kick)| {
            let mut ring = Ring::try_from(ring.state()).map_err(io::Error::other)?;
            ring.set_event_idx(event_idx);
            Ok(Queue::new(ring, kick.try_clone()?, self.memory.clone(), self.interrupt.clone()))
        });
        Ok(Io { queues: queues.collect::<io::Result<_>>()?, interrupt: self.interrupt.clone() })
    }

    fn start(&mut self) {
        // A queue that the driver enabled must lie in memory; otherwise the device refuses to run.
        if self.rings.iter().any(|ring| ring.ready() && !ring.is_valid(&*self.memory)) {
            self.needs_reset.store(true, Ordering::SeqCst);
            return;
        }
        self.engine = match (std::mem::replace(&mut self.engine, Engine::Lost), self.io()) {
            (Engine::Idle(mut device), Ok(io)) => {
                device.activate(self.registers.accepted);
                match Worker::start(device, io, self.needs_reset.clone()) {
                    Ok(worker) => Engine::Running(worker),
                    Err(error) => self.lost(&error),
                }
            }
            (engine, Ok(_)) => engine,
            (_, Err(error)) => self.lost(&error),
        };
    }

    fn set_status(&mut self, status: u32) {
        if status == 0 {
            return self.reset();
        }
        // The driver only ever adds bits (virtio 1.2 §2.1.1), and FEATURES_OK stays only with features that were offered.
        let mut status = (status | self.registers.status) & (ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED);
        let accepted = self.registers.accepted;
        if accepted & !self.offered != 0 || accepted & F_VERSION_1 == 0 {
            status &= !FEATURES_OK;
        }
        let starts = status & DRIVER_OK != 0 && self.registers.status & DRIVER_OK == 0;
        if starts && status & FEATURES_OK == 0 {
            return;
        }
        self.registers.status = status;
        if starts {
            self.start();
        }
    }

    fn ring(&mut self) -> Option<&mut Ring> {
        self.rings.get_mut(self.registers.queue_select as usize)
    }

    /// Changes a queue, which the driver may do only before DRIVER_OK and while the queue is not ready.
    fn change_ring(&mut self, change: impl FnOnce(&mut Ring)) {
        if self.registers.status & DRIVER_OK == 0
            && let Some(ring) = self.ring()
            && !ring.ready()
        {
            change(ring);
        }
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.kind as u32,
            0x0c => VENDOR,
            0x10 => half(self.offered, self.registers.device_features_select),
            0x34 => self.ring().map_or(0, |ring| ring.max_size().into()),
            0x44 => self.ring().map_or(0, |ring| ring.ready().into()),
            0x60 => self.interrupt.status(),
            0x70 if self.needs_reset.load(Ordering::SeqCst) => self.registers.status | NEEDS_RESET,
            0x70 => self.registers.status,
            // Shared memory regions: none, which reads as length and base of all ones (§4.2.2).
            0xb0..=0xbc => u32::MAX,
            // ConfigGeneration: every read of a field is made under one lock, and no field that changes is longer.
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            0x14 => self.registers.device_features_select = value,
            0x20 if self.registers.status & FEATURES_OK == 0 => {
                let accepted = &mut self.registers.accepted;
                match self.registers.driver_features_select {
                    0 => *accepted = (*accepted & !0xffff_ffff) | u64::from(value),
                    1 => *accepted = (*accepted & 0xffff_ffff) | u64::from(value) << 32,
                    _ => {}
                }
            }
            0x24 => self.registers.driver_features_select = value,
            0x30 => self.registers.queue_select = value,
            0x38 => self.change_ring(|ring| ring.set_size(u16::try_from(value).unwrap_or(0))),
            0x44 if value == 1 => self.change_ring(|ring| ring.set_ready(true)),
            0x44 if self.registers.status & DRIVER_OK == 0 => {
                if let Some(ring) = self.ring() {
                    ring.set_ready(false);
                }
            }
            // KVM takes these writes itself; one arrives here only for a queue that does not exist.
            QUEUE_NOTIFY => {
                if let Some(kick) = self.kicks.get(value as usize) {
                    // A full counter has already woken the device.
                    let _ = kick.write(1);
                }
            }
            0x64 => self.interrupt.acknowledge(value),
            0x70 => self.set_status(value),
            0x80 => self.change_ring(|ring| ring.set_desc_table_address(Some(value), None)),
            0x84 => self.change_ring(|ring| ring.set_desc_table_address(None, Some(value))),
            0x90 => self.change_ring(|ring| ring.set_avail_ring_address(Some(value), None)),
            0x94 => self.change_ring(|ring| ring.set_avail_ring_address(None, Some(value))),
            0xa0 => self.change_ring(|ring| ring.set_used_ring_address(Some(value), None)),
            0xa4 => self.change_ring(|ring| ring.set_used_ring_address(None, Some(value))),
            _ => {}
        }
    }
}

/// The lower or upper half of a bit set, by the select register.
fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => (bits & 0xffff_ffff) as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

impl BusDevice for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            let config = self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            return config.read(offset - CONFIG, data);
        }
        data.fill(0);
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            let mut config = self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            return config.write(offset - CONFIG, data);
        }
        if let Ok(data) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.pause();
    }
}

impl From<&QueueState> for RingState {
    fn from(state: &QueueState) -> Self {
        Self {
            size: state.size,
            ready: state.ready,
            event_idx: state.event_idx_enabled,
            next_avail: state.next_avail,
            next_used: state.next_used,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
        }
    }
}

impl RingState {
    fn ring(&self, max_size: u16) -> Result<Ring, StateError> {
        let state = QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        };
        Ring::try_from(state).map_err(|error| StateError(error.to_string()))
    }
}

const _: () = assert!(CONFIG < layout::VIRTIO_SLOT_SIZE);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block::raw_for_tests;
    use super::*;

    /// Registers of a disk of eight sectors, and the disk's memory.
    fn transport() -> Transport {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let block = raw_for_tests(file);
        let memory = GuestMemory::from_ranges(&[(vm_memory::GuestAddress(0), 1 << 20)]).unwrap();
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        Transport::new(Box::new(block), Arc::new(memory), line).unwrap()
    }

    fn read(transport: &mut Transport, offset: u64) -> u32 {
        let mut data = [0; 4];
        transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(transport: &mut Transport, offset: u64, value: u32) {
        transport.write(offset, &value.to_le_bytes());
    }

    /// What a driver does until DRIVER_OK, with its rings at the given addresses.
    fn start(transport: &mut Transport, descriptors: u32, available: u32, used: u32) {
        write(transport, 0x70, ACKNOWLEDGE | DRIVER);
        write(transport, 0x24, 1);
        write(transport, 0x20, 1);
        write(transport, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        write(transport, 0x38, 8);
        write(transport, 0x80, descriptors);
        write(transport, 0x90, available);
        write(transport, 0xa0, used);
        write(transport, 0x44, 1);
        write(transport, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    #[test]
    fn a_driver_that_keeps_the_rules_starts_the_device_and_a_reset_takes_it_back() {
        let mut transport = transport();
        assert_eq!(read(&mut transport, 0), MAGIC);
        assert_eq!([read(&mut transport, 4), read(&mut transport, 8)], [2, 2]);
        assert_eq!(read(&mut transport, 0x34), 256);
        start(&mut transport, 0x1000, 0x2000, 0x3000);
        assert!(matches!(transport.engine, Engine::Running(_)));
        assert_eq!(read(&mut transport, 0x70), 15);
        assert_eq!(read(&mut transport, CONFIG), 8, "sectors");
        write(&mut transport, 0x70, 0);
        assert!(matches!(transport.engine, Engine::Idle(_)));
        assert_eq!([read(&mut transport, 0x70), read(&mut transport, 0x44)], [0, 0]);
    }

    #[test]
    fn features_that_were_not_offered_are_not_accepted_and_the_device_does_not_start() {
        for (half, bits) in [(1, 0), (1, 3), (0, 1 << 5)] {
            let mut transport = transport();
            write(&mut transport, 0x70, ACKNOWLEDGE | DRIVER);
            write(&mut transport, 0x24, half);
            write(&mut transport, 0x20, bits);
            write(&mut transport, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
            assert_eq!(read(&mut transport, 0x70) & FEATURES_OK, 0);
            write(&mut transport, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
            assert!(matches!(transport.engine, Engine::Idle(_)));
        }
    }

    #[test]
    fn a_ring_outside_memory_asks_for_a_reset_and_one_inside_then_works() {
        let mut transport = transport();
        start(&mut transport, 0x1000, 0xffff_f000, 0x3000);
        assert_eq!(read(&mut transport, 0x70) & NEEDS_RESET, NEEDS_RESET);
        write(&mut transport, 0x70, 0);
        start(&mut transport, 0x1000, 0x2000, 0x3000);
        assert!(matches!(transport.engine, Engine::Running(_)));
    }

    #[test]
    fn a_ring_cannot_be_moved_while_the_device_runs() {
        let mut transport = transport();
        start(&mut transport, 0x1000, 0x2000, 0x3000);
        write(&mut transport, 0x44, 0);
        write(&mut transport, 0x80, 0x9000);
        assert_eq!(read(&mut transport, 0x44), 1);
        assert_eq!(transport.rings[0].desc_table(), 0x1000);
    }

    #[test]
    fn a_running_devices_state_round_trips_into_another() {
        let mut first = transport();
        start(&mut first, 0x1000, 0x2000, 0x3000);
        let state = first.save().unwrap();
        let json = serde_json::to_string(&state).unwrap();
        let mut second = transport();
        second.restore(serde_json::from_str(&json).unwrap()).unwrap();
        assert!(matches!(second.engine, Engine::Parked(..)));
        assert_eq!(second.save().unwrap(), state);
        second.resume();
        assert!(matches!(second.engine, Engine::Running(_)));
        first.resume();
        assert!(matches!(first.engine, Engine::Running(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_sequence_of_accesses_leaves_registers_that_a_reset_repairs(
            accesses in proptest::collection::vec(
                (0u64..0x200, any::<u32>(), 0usize..9, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut transport = transport();
            for (offset, value, length, writes, aligned) in accesses {
                let offset = if aligned { offset & !3 } else { offset };
                let value = if aligned { value % 64 } else { value };
                let mut data = [0; 8];
                data[..4].copy_from_slice(&value.to_le_bytes());
                let length = if aligned { 4 } else { length.max(1) };
                if writes {
                    transport.write(offset, &data[..length]);
                } else {
                    transport.read(offset, &mut data[..length]);
                }
            }
            write(&mut transport, 0x70, 0);
            start(&mut transport, 0x1000, 0x2000, 0x3000);
            prop_assert!(matches!(transport.engine, Engine::Running(_)));
        }
    }
}
