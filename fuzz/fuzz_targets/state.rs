//! The state file of a snapshot, and devices that are to go on from it. If the first byte is not 0 its header is made good,
//! and what follows is the payload.
#![no_main]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use yunju_fuzz::{Rig, disk};
use yunju_vmm::devices::virtio::Device;
use yunju_vmm::devices::virtio::balloon::{Balloon, Control};
use yunju_vmm::devices::virtio::gpu::Gpu;
use yunju_vmm::devices::virtio::input::Input;
use yunju_vmm::devices::virtio::net::{Backend, Net};
use yunju_vmm::devices::virtio::rng::Rng;
use yunju_vmm::devices::virtio::snd::Snd;
use yunju_vmm::devices::virtio::vsock::Vsock;
use yunju_vmm::display::Display;
use yunju_vmm::snapshot::memory::is_valid;
use yunju_vmm::snapshot::state::State;

/// Where the vsock device listens.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| tempfile::tempdir().unwrap().keep());

/// A new device with a virtio device id (virtio 1.2 §5).
fn device(id: u32) -> Option<Box<dyn Device>> {
    Some(match id {
        1 => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, _): (OwnedFd, _) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            Box::new(Net::new(Backend::stream(ours), [2, 0, 0, 0, 0, 1], Arc::default()).unwrap())
        }
        2 => Box::new(disk::block(2)),
        4 => Box::new(Rng::new()),
        5 => Box::new(Balloon::new(Control::new().unwrap())),
        16 => Box::new(Gpu::new(Display::new(640, 480).unwrap())),
        18 => {
            let display = Display::new(640, 480).unwrap();
            Box::new(Input::keyboard(display.keyboard(), display))
        }
        19 => {
            let socket = FOLDER.join("s");
            let _ = std::fs::remove_file(&socket);
            Box::new(Vsock::new(3, socket).unwrap())
        }
        25 => Box::new(Snd::new(Display::new(640, 480).unwrap().sound()).unwrap()),
        _ => return None,
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let decoded = if *kind == 0 {
        State::decode(rest)
    } else {
        let mut file = b"YUNJUSNP\x02\0\0\0".to_vec();
        file.extend(crc32fast::hash(rest).to_le_bytes());
        file.extend((rest.len() as u64).to_le_bytes());
        file.extend(rest);
        State::decode(&file)
    };
    let Ok(state) = decoded else { return };
    assert!(State::decode(&state.encode().unwrap()).is_ok());
    let _ = is_valid(&state.memory.extents, state.machine.memory);
    for (id, transport) in state.machine.devices.iter().zip(state.transports).take(4) {
        if let Some(device) = device(*id) {
            let mut rig = Rig::new(device);
            rig.go_on(transport);
            rig.end();
        }
    }
});
