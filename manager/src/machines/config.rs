//! What a desktop's machine is made of: its image, its own disks, its sockets.

use std::os::fd::RawFd;

use uuid::Uuid;
use yunju_protocol::machine::{
    ByteSize, DiskConfig, DisplayConfig, Endpoint, MachineConfig, NetBackend, NetConfig, RateLimit, SerialConfig,
    VsockConfig,
};

use super::Limits;
use super::disks::Medium;
use crate::folder::Folder;
use crate::images::Image;
use crate::store::Desktop;

/// The guest's context id. The host side is a Unix socket of each machine, so all may have the same.
const GUEST_CID: u32 = 3;

/// Writes down the machine of `desktop` on its `medium`; `net` is its end of the socket to passt.
pub fn machine(
    desktop: &Desktop,
    image: &Image,
    folder: &Folder,
    medium: Medium,
    net: Option<RawFd>,
    limits: &Limits,
) -> MachineConfig {
    let manifest = &image.manifest;
    let limit = |bytes: Option<ByteSize>| bytes.map(|bytes| RateLimit { bytes: Some(bytes), operations: None });
    let socket = |name: &str| Endpoint::Unix(folder.run_file(name));
    MachineConfig {
        kernel: image.folder.join(&manifest.kernel),
        initrd: manifest.initrd.as_ref().map(|initrd| image.folder.join(initrd)),
        cmdline: manifest.cmdline.clone(),
        memory: ByteSize(desktop.memory),
        cpus: desktop.cpus,
        disks: medium.disks.into_iter().map(|disk| DiskConfig { limit: limit(limits.disk), ..disk }).collect(),
        serial: SerialConfig::Socket(socket("console.sock")),
        display: manifest.display.map(|display| DisplayConfig {
            socket: Endpoint::Unix(folder.display_socket()),
            width: display.width,
            height: display.height,
        }),
        sound: manifest.display.is_some() && manifest.sound,
        net: net.map(|fd| NetConfig {
            backend: NetBackend::Stream(Endpoint::Fd(fd)),
            mac: Some(hardware_address(desktop.id)),
            limit: limit(limits.net),
        }),
        vsock: Some(VsockConfig { cid: GUEST_CID, socket: folder.vsock_socket() }),
        balloon: true,
        control: Some(socket("control.sock")),
        restore: medium.restore,
    }
}

/// A locally administered address that a desktop keeps: 5a:59 and four bytes of its random id.
fn hardware_address(id: Uuid) -> String {
    let [a, b, c, d, ..] = id.into_bytes();
    format!("5a:59:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_unicast_local_and_kept() {
        let id = Uuid::new_v4();
        assert_eq!(hardware_address(id), hardware_address(id));
        let first = u8::from_str_radix(&hardware_address(id)[..2], 16).unwrap();
        assert_eq!(first & 0b11, 0b10);
    }
}
