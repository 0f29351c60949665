//! Chains and rings that no honest driver makes.

use guest::memory;
use guest::virtio::{Buffer, Descriptor, Device, Error, INDIRECT, INDIRECT_DESCRIPTORS, NEXT, Queue, Transport, WRITE};

type Attack = fn(Transport, u16) -> Result<(), Error>;

/// Beyond any memory of a machine.
const NOWHERE: u64 = 0xffff_ffff_ffff_f000;
/// Where the devices' registers are.
const DEVICES: u64 = 0xd000_0000;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("a buffer beyond memory", |t, q| buffers(t, q, &[(NOWHERE, 4096)])),
    ("a buffer whose end overflows", |t, q| buffers(t, q, &[(u64::MAX - 10, u32::MAX)])),
    ("a buffer in the devices' registers", |t, q| buffers(t, q, &[(DEVICES, 4096)])),
    ("a buffer of no bytes", |t, q| buffers(t, q, &[(0x10_0000, 0)])),
    ("a buffer of four GiB", |t, q| buffers(t, q, &[(0x10_0000, u32::MAX)])),
    ("many buffers of four GiB", |t, q| buffers(t, q, &[(0x10_0000, u32::MAX); 16])),
    ("a request cut short", |t, q| buffers(t, q, &[(0x10_0000, 3)])),
    ("a request in single bytes", |t, q| buffers(t, q, &[(0x10_0000, 1); 32])),
    ("a chain that is a loop of one", |t, q| chain(t, q, &[(NEXT, 0)])),
    ("a chain that is a loop of two", |t, q| chain(t, q, &[(NEXT, 1), (NEXT | WRITE, 0)])),
    ("a chain that leaves the table", |t, q| chain(t, q, &[(NEXT, 0x7fff)])),
    ("writable before readable", |t, q| chain(t, q, &[(NEXT | WRITE, 1), (NEXT, 2), (WRITE, 0)])),
    ("a head outside the table", |t, q| with(t, q, |device| device.queues[usize::from(q)].offer(0x8000))),
    ("the greatest head", |t, q| with(t, q, |device| device.queues[usize::from(q)].offer(0xffff))),
    ("an index that jumps over the ring", |t, q| jump(t, q, |size| size + 1)),
    ("an index that jumps half around", |t, q| jump(t, q, |_| 0x8000)),
    ("an index that goes back", |t, q| jump(t, q, |_| 0xffff)),
    ("an indirect table of no bytes", |t, q| indirect(t, q, 0, &[])),
    ("an indirect table of no whole entries", |t, q| indirect(t, q, 33, &[(0, 0), (0, 0)])),
    ("an indirect table of four GiB", |t, q| indirect(t, q, u32::MAX, &[(NEXT, 1)])),
    ("an indirect table that is a loop", |t, q| indirect(t, q, 32, &[(NEXT, 1), (NEXT, 0)])),
    ("an indirect table in an indirect table", |t, q| indirect(t, q, 16, &[(INDIRECT, 0)])),
    ("an indirect table that leaves itself", |t, q| indirect(t, q, 16, &[(NEXT, 9)])),
    ("an indirect table beyond memory", |t, q| lone(t, q, NOWHERE, 64, INDIRECT)),
    ("an indirect table that also goes on", |t, q| lone(t, q, 0x10_0000, 64, INDIRECT | NEXT)),
    ("rings beyond memory", |t, q| rings(t, q, [NOWHERE; 3])),
    ("rings in the devices' registers", |t, q| rings(t, q, [DEVICES; 3])),
    ("rings at odd addresses", |t, q| rings(t, q, [0x10_0001, 0x11_0003, 0x12_0005])),
    ("rings on top of each other", |t, q| rings(t, q, [0x10_0000; 3])),
    ("a used ring beyond memory", |t, q| partly(t, q, 2, NOWHERE)),
    ("an available ring at the end of the address space", |t, q| partly(t, q, 1, u64::MAX - 1)),
    ("a descriptor table beyond memory", |t, q| partly(t, q, 0, NOWHERE)),
    ("a queue of size 0", |t, q| sized(t, q, 0)),
    ("a queue of size 3", |t, q| sized(t, q, 3)),
    ("a queue of size 65536", |t, q| sized(t, q, 65536)),
    ("a queue of the greatest size", |t, q| sized(t, q, u32::MAX)),
    ("a notification before the driver is ready", notify_early),
    ("a reset while requests are on the way", reset_in_flight),
    ("a storm of notifications", |t, q| with(t, q, |device| (0..500).for_each(|_| device.transport.notify(q)))),
];

/// Brings the device up, with indirect tables if it has them, and lets `attack` at it.
fn with(transport: Transport, queue: u16, attack: impl FnOnce(&mut Device)) -> Result<(), Error> {
    let mut device = Device::start(transport, INDIRECT_DESCRIPTORS, queue + 1)?;
    attack(&mut device);
    transport.notify(queue);
    Ok(())
}

/// The same buffers once to be read and once to be written, as many as a small queue has room for.
fn buffers(transport: Transport, queue: u16, list: &[(u64, u32)]) -> Result<(), Error> {
    with(transport, queue, |device| {
        let list = &list[..list.len().min(usize::from(device.queues[usize::from(queue)].size() / 2))];
        for writable in [false, true] {
            let mut chain = [Buffer::raw(0, 0, false); 32];
            for (buffer, (address, length)) in chain.iter_mut().zip(list) {
                *buffer = Buffer::raw(*address, *length, writable);
            }
            device.give(queue, &chain[..list.len()]);
        }
    })
}

/// Descriptors by their flags and next entries, from entry 0 on.
fn chain(transport: Transport, queue: u16, list: &[(u16, u16)]) -> Result<(), Error> {
    with(transport, queue, |device| {
        let queue = &mut device.queues[usize::from(queue)];
        for (entry, (flags, next)) in (0..).zip(list) {
            let length = 16;
            queue.describe(entry, Descriptor { address: 0x10_0000, length, flags: *flags, next: *next });
        }
        queue.offer(0);
    })
}

fn jump(transport: Transport, queue: u16, index: fn(u16) -> u16) -> Result<(), Error> {
    with(transport, queue, |device| {
        let queue = &mut device.queues[usize::from(queue)];
        queue.set_available_index(index(queue.size()));
    })
}

fn lone(transport: Transport, queue: u16, address: u64, length: u32, flags: u16) -> Result<(), Error> {
    with(transport, queue, |device| {
        let queue = &mut device.queues[usize::from(queue)];
        queue.describe(0, Descriptor { address, length, flags, next: 0 });
        queue.offer(0);
    })
}

fn indirect(transport: Transport, queue: u16, length: u32, list: &[(u16, u16)]) -> Result<(), Error> {
    let table = memory::zeroed(64, 16);
    for (bytes, (flags, next)) in table.chunks_exact_mut(16).zip(list) {
        bytes[..8].copy_from_slice(&0x10_0000_u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&16_u32.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
    }
    lone(transport, queue, table.as_ptr() as u64, length, INDIRECT)
}

fn start_with(transport: Transport, queue: u16, size: u32, rings: [u64; 3]) -> Result<(), Error> {
    transport.negotiate(INDIRECT_DESCRIPTORS)?;
    transport.set_queue(queue, size, rings);
    transport.ready();
    transport.notify(queue);
    Ok(())
}

fn rings(transport: Transport, queue: u16, rings: [u64; 3]) -> Result<(), Error> {
    start_with(transport, queue, 16, rings)
}

/// A good queue but for one of its rings; with a chain in it if the device can see it.
fn partly(transport: Transport, queue: u16, ring: usize, address: u64) -> Result<(), Error> {
    let mut good = Queue::new(16);
    let mut rings = good.rings();
    good.push(&[Buffer::raw(0x10_0000, 64, false), Buffer::raw(0x11_0000, 64, true)]);
    rings[ring] = address;
    start_with(transport, queue, 16, rings)
}

fn sized(transport: Transport, queue: u16, size: u32) -> Result<(), Error> {
    start_with(transport, queue, size, Queue::new(256).rings())
}

fn notify_early(transport: Transport, queue: u16) -> Result<(), Error> {
    let mut good = Queue::new(16);
    good.push(&[Buffer::raw(0x10_0000, 64, false), Buffer::raw(0x11_0000, 64, true)]);
    transport.reset();
    transport.notify(queue);
    transport.negotiate(0)?;
    transport.notify(queue);
    transport.set_queue(queue, 16, good.rings());
    transport.notify(queue);
    Ok(())
}

/// Fills the queue with requests for memory that stays, and resets at once.
fn reset_in_flight(transport: Transport, queue: u16) -> Result<(), Error> {
    with(transport, queue, |device| {
        let memory = memory::zeroed(8192, 4096).as_ptr() as u64;
        for _ in 0..4 {
            let chain = [
                Buffer::raw(memory, 16, false),
                Buffer::raw(memory + 512, 4096, true),
                Buffer::raw(memory + 16, 1, true),
            ];
            device.queues[usize::from(queue)].push(&chain);
        }
        device.transport.notify(queue);
        device.transport.reset();
    })
}
