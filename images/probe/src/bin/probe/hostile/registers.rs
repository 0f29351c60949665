//! Registers written and read in every wrong way.

use guest::virtio::{Transport, register, status};

/// The rest of a device's page behind its registers.
const CONFIG_END: usize = 0x1000;

type Attack = fn(Transport);

pub const ATTACKS: &[(&str, Attack)] = &[
    ("registers in the wrong order", wrong_order),
    ("features that were not offered", features),
    ("queues that do not exist", queues),
    ("every register written with ones", ones),
    ("configuration written and read everywhere", config),
    ("odd widths", widths),
    ("status bits at random", statuses),
];

fn wrong_order(transport: Transport) {
    transport.reset();
    transport.ready();
    transport.set_queue(0, 8, [0x10_0000, 0x11_0000, 0x12_0000]);
    transport.notify(0);
    transport.write(register::STATUS, status::FEATURES_OK);
    transport.write(register::INTERRUPT_ACK, u32::MAX);
    transport.notify(0);
}

fn features(transport: Transport) {
    transport.reset();
    transport.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
    for select in [0, 1, 2, 31, u32::MAX] {
        transport.write(register::DRIVER_FEATURES_SELECT, select);
        transport.write(register::DRIVER_FEATURES, u32::MAX);
        transport.write(register::DEVICE_FEATURES_SELECT, select);
        transport.read(register::DEVICE_FEATURES);
    }
    transport.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    transport.ready();
    transport.notify(0);
}

fn queues(transport: Transport) {
    let _ = transport.negotiate(0);
    for queue in [3, 4, 63, 64, 255, 0xffff] {
        transport.queue_size_max(queue);
        transport.set_queue(queue, 8, [0x10_0000, 0x11_0000, 0x12_0000]);
    }
    transport.write(register::QUEUE_SELECT, u32::MAX);
    transport.write(register::QUEUE_READY, 1);
    transport.ready();
    for queue in [3, 255, 0xffff] {
        transport.notify(queue);
    }
    transport.write(register::QUEUE_NOTIFY, u32::MAX);
}

fn ones(transport: Transport) {
    for offset in (0..register::CONFIG).step_by(4).filter(|offset| *offset != register::STATUS) {
        transport.write(offset, u32::MAX);
        transport.read(offset);
    }
    transport.write(register::STATUS, u32::MAX);
}

fn config(transport: Transport) {
    for offset in (register::CONFIG..CONFIG_END).step_by(60) {
        transport.write(offset, u32::MAX);
        transport.read(offset);
    }
    for offset in [0, 1, 2, 7, 8, 136, 255, CONFIG_END - register::CONFIG - 1] {
        transport.write_config_u8(offset, 0xff);
        transport.config_u8(offset);
    }
    for selection in 0..=255 {
        transport.write_config_u8(0, selection);
        transport.write_config_u8(1, selection);
        transport.config_u8(2);
    }
}

fn widths(transport: Transport) {
    let page = transport.page();
    for offset in [0, 1, 2, 3, register::STATUS, register::QUEUE_NOTIFY + 2, register::CONFIG, CONFIG_END - 8] {
        // SAFETY: all within the device's page; what the accesses do is the device's affair.
        unsafe {
            let at = page.add(offset);
            at.cast::<u64>().write_unaligned(0);
            core::hint::black_box(at.cast::<u64>().read_unaligned());
            at.cast::<u16>().write_unaligned(0);
            core::hint::black_box(at.cast::<u16>().read_unaligned());
            at.write_volatile(0);
            at.read_volatile();
        }
    }
}

fn statuses(transport: Transport) {
    let mut bits = 1_u32;
    for _ in 0..64 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        transport.write(register::STATUS, bits >> 16);
        transport.notify(0);
    }
}
