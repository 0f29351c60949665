//! Sockets between guest and host.

use alloc::vec::Vec;

use guest::params::BootParams;
use guest::println;
use guest::virtio::vsock::{Packet, Vsock, operation};

use crate::{During, Failure, Outcome, ensure};

const GUEST_PORT: u32 = 40_000;
/// A listener of the host that sends back what it gets.
const ECHO_PORT: u32 = 7;
/// Where nobody listens.
const CLOSED_PORT: u32 = 9;
/// Where this guest listens.
const LISTEN_PORT: u32 = 52;
/// More than the windows of both sides together.
const BULK: usize = 1 << 20;
const CHUNK: usize = 4096;

fn expect(vsock: &mut Vsock, wanted: u16, step: &str) -> Result<Packet, Failure> {
    let packet = vsock.next_packet().during(step)?;
    ensure!(packet.operation == wanted, "{step}: operation {} instead of {wanted}", packet.operation);
    Ok(packet)
}

/// Connects to the host and is connected to by it; each time one side sends back what it gets.
pub fn both_ways(_: &BootParams) -> Outcome {
    let mut vsock = Vsock::open().during("vsock")?;
    println!("cid {}", vsock.cid());
    vsock.send(GUEST_PORT, CLOSED_PORT, operation::REQUEST, b"").during("connect to a closed port")?;
    expect(&mut vsock, operation::RESET, "closed port")?;
    to_host(&mut vsock)?;
    from_host(&mut vsock)
}

/// 1 MiB to the host and back, never more on the way than its window allows.
fn to_host(vsock: &mut Vsock) -> Outcome {
    let port = GUEST_PORT + 1;
    vsock.begin();
    vsock.send(port, ECHO_PORT, operation::REQUEST, b"").during("connect")?;
    let accepted = expect(vsock, operation::RESPONSE, "connect")?;
    let (mut window, mut taken) = (accepted.window, accepted.taken);
    ensure!(window > 0, "the host's window is 0");
    let data: Vec<u8> = (0..BULK).map(|at| (at / CHUNK + at) as u8).collect();
    let (mut sent, mut back) = (0_usize, 0_usize);
    while back < BULK {
        let room = (window as usize).saturating_sub(sent - taken as usize);
        let chunk = CHUNK.min(BULK - sent).min(room);
        // Not too far ahead of the echo, or both windows fill and nobody moves.
        if chunk > 0 && sent - back < 32 * 1024 {
            vsock.send(port, ECHO_PORT, operation::DATA, &data[sent..sent + chunk]).during("send")?;
            sent += chunk;
            continue;
        }
        let packet = vsock.next_packet().during("echo")?;
        (window, taken) = (packet.window, packet.taken);
        ensure!(taken as usize <= sent, "the host took {taken} of {sent} bytes");
        match packet.operation {
            operation::DATA => {
                ensure!(data[back..].starts_with(&packet.data), "the echo differs after {back} bytes");
                back += packet.data.len();
                vsock.send(port, ECHO_PORT, operation::CREDIT_UPDATE, b"").during("credit")?;
            }
            operation::CREDIT_UPDATE => {}
            operation::CREDIT_REQUEST => {
                vsock.send(port, ECHO_PORT, operation::CREDIT_UPDATE, b"").during("credit")?;
            }
            other => ensure!(false, "operation {other} while echoing"),
        }
    }
    println!("echoed {back} bytes");
    vsock.send(port, ECHO_PORT, operation::SHUTDOWN, b"").during("shut down")?;
    loop {
        match vsock.next_packet().during("end")?.operation {
            operation::RESET => return Ok(()),
            operation::CREDIT_UPDATE | operation::SHUTDOWN => {}
            other => ensure!(false, "operation {other} at the end"),
        }
    }
}

/// Accepts one connection and sends back what comes until the host closes it.
fn from_host(vsock: &mut Vsock) -> Outcome {
    println!("READY");
    vsock.begin();
    let request = guest::interrupt::wait_for(10_000, || vsock.receive());
    let Some(request) = request else { return Err(alloc::string::String::from("nobody connects").into()) };
    ensure!(request.operation == operation::REQUEST, "operation {} instead of a request", request.operation);
    ensure!(request.guest_port == LISTEN_PORT, "a request for port {}", request.guest_port);
    let host_port = request.host_port;
    vsock.send(LISTEN_PORT, host_port, operation::RESPONSE, b"").during("accept")?;
    loop {
        let packet = vsock.next_packet().during("from the host")?;
        match packet.operation {
            operation::DATA => vsock.send(LISTEN_PORT, host_port, operation::DATA, &packet.data).during("send back")?,
            operation::SHUTDOWN if packet.flags & 3 != 3 => {}
            operation::SHUTDOWN => {
                vsock.send(LISTEN_PORT, host_port, operation::RESET, b"").during("close")?;
                return Ok(());
            }
            operation::RESET => return Ok(()),
            operation::CREDIT_UPDATE => {}
            operation::CREDIT_REQUEST => {
                vsock.send(LISTEN_PORT, host_port, operation::CREDIT_UPDATE, b"").during("credit")?;
            }
            other => ensure!(false, "operation {other} from the host"),
        }
    }
}
