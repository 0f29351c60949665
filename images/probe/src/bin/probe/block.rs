//! Disks.

use guest::params::BootParams;
use guest::virtio::block::{DISCARD, Disk, FLUSH, READ_ONLY, SECTOR, WRITE_ZEROES, request};
use guest::virtio::{Buffer, Error, PATIENCE_MS};
use guest::{interrupt, memory, println};

use crate::{During, Outcome, ensure};

const IO_ERROR: Result<(), Error> = Err(Error::Refused(1));
const UNSUPPORTED: Result<(), Error> = Err(Error::Refused(2));

fn pattern(seed: usize) -> impl FnMut() -> u8 {
    let mut state = seed as u32 * 2_654_435_761 + 1;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }
}

/// What is written is read again; what cannot be done is refused; the text in sector 1 is for the host.
pub fn read_write(_: &BootParams) -> Outcome {
    let mut disk = Disk::open(0).during("disk")?;
    let sectors = disk.sectors();
    println!("{sectors} sectors, features {:#x}", disk.device.features);
    ensure!(!disk.has(READ_ONLY), "the disk is read-only");
    ensure!(disk.has(FLUSH) && disk.has(DISCARD), "flush and discard are not offered");

    let mut text = [b'.'; SECTOR];
    text[..22].copy_from_slice(b"written by the probe\r\n");
    disk.write(1, &text).during("write sector 1")?;
    disk.flush().during("flush")?;

    let big = memory::zeroed(256 * 1024, 4096);
    big.fill_with(pattern(1));
    disk.write(8, big).during("write 256 KiB")?;
    let back = memory::zeroed(big.len(), 4096);
    disk.read(8, back).during("read 256 KiB")?;
    ensure!(core::hint::black_box(&mut *back) == big, "256 KiB came back different");

    // One request, its data in pieces that are not whole sectors.
    let (a, rest) = back.split_at_mut(100);
    let (b, rest) = rest.split_at_mut(1000);
    let pieces = [Buffer::write(a), Buffer::write(b), Buffer::write(&mut rest[..3 * SECTOR - 1100])];
    disk.request(request::READ, 9, &pieces).during("read in pieces")?;
    ensure!(core::hint::black_box(&mut *back)[..3 * SECTOR] == big[SECTOR..][..3 * SECTOR], "the pieces differ");

    in_flight(&mut disk, big)?;

    let id = disk.id().during("get id")?;
    println!("id {:?}", core::str::from_utf8(&id).unwrap_or("?").trim_end_matches('\0'));
    disk.clear(request::DISCARD, 8, 16).during("discard")?;
    if disk.has(WRITE_ZEROES) {
        disk.clear(request::WRITE_ZEROES, 32, 4).during("write zeroes")?;
        disk.read(32, &mut back[..4 * SECTOR]).during("read zeroes")?;
        ensure!(core::hint::black_box(&mut *back)[..4 * SECTOR].iter().all(|byte| *byte == 0), "no zeroes");
        disk.read(36, &mut back[..SECTOR]).during("read behind the zeroes")?;
        ensure!(core::hint::black_box(&mut *back)[..SECTOR] == big[28 * SECTOR..][..SECTOR], "too many zeroes");
    }

    let mut sector = [0; 2 * SECTOR];
    ensure!(disk.read(sectors, &mut sector[..SECTOR]) == IO_ERROR, "read behind the end");
    ensure!(disk.read(sectors - 1, &mut sector) == IO_ERROR, "read across the end");
    ensure!(disk.read(u64::MAX, &mut sector) == IO_ERROR, "read at the last possible sector");
    ensure!(disk.read(1 << 55, &mut sector) == IO_ERROR, "read where the offset overflows");
    ensure!(disk.write(sectors, &sector) == IO_ERROR, "write behind the end");
    ensure!(disk.read(0, &mut sector[..100]) == IO_ERROR, "read of no whole sector");
    ensure!(disk.clear(request::DISCARD, sectors - 1, 2) == IO_ERROR, "discard across the end");
    ensure!(disk.clear(request::DISCARD, u64::MAX, 2) == IO_ERROR, "discard at the last possible sector");
    ensure!(disk.request(99, 0, &[Buffer::read(&sector)]) == UNSUPPORTED, "unknown request");
    disk.read(1, &mut sector[..SECTOR]).during("read after the refusals")?;
    ensure!(core::hint::black_box(&mut sector)[..SECTOR] == text, "sector 1 changed");
    Ok(())
}

/// Sixteen reads at once; each comes back with its own data.
fn in_flight(disk: &mut Disk, expected: &[u8]) -> Outcome {
    #[repr(C)]
    struct Request {
        header: [u64; 2],
        data: [u8; SECTOR],
        status: u8,
    }
    let memory = memory::zeroed(16 * size_of::<Request>(), 16);
    // SAFETY: zeroed bytes of that size and alignment are 16 requests.
    let requests = unsafe { core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<Request>(), 16) };
    let mut heads = [0; 16];
    for (at, request) in requests.iter_mut().enumerate() {
        request.header[1] = 8 + 3 * at as u64;
        request.status = 0xff;
        let chain =
            [Buffer::read(&request.header), Buffer::write(&mut request.data), Buffer::write(&mut request.status)];
        heads[at] = disk.device.queues[0].push(&chain);
    }
    disk.device.transport.notify(0);
    for _ in 0..16 {
        let back = interrupt::wait_for(PATIENCE_MS, || disk.device.take(0));
        let Some((head, length)) = back else { return Err(Error::Silent(0).into()) };
        let Some(at) = heads.iter().position(|known| *known == head) else {
            return Err(alloc::format!("chain {head} came back, which was not given").into());
        };
        let request = core::hint::black_box(&mut requests[at]);
        ensure!(request.status == 0 && length as usize == SECTOR + 1, "status {}, {length} bytes", request.status);
        ensure!(request.data == expected[3 * at * SECTOR..][..SECTOR], "request {at} has wrong data");
    }
    Ok(())
}

/// Writes for ever: in round n sector n (a part of a block) and block 128 + n, then a flush, all filled with n.
pub fn write_and_flush(_: &BootParams) -> Outcome {
    let mut disk = Disk::open(0).during("disk")?;
    let block = memory::zeroed(8 * SECTOR, 4096);
    for round in 0..disk.sectors() / 8 - 128 {
        block.fill(round as u8 | 1);
        disk.write(round, &block[..SECTOR]).during("write a sector")?;
        disk.write((128 + round) * 8, block).during("write a block")?;
        disk.flush().during("flush")?;
        println!("FLUSHED {round}");
    }
    Ok(())
}

/// A read-only disk can be read and nothing else.
pub fn read_only(_: &BootParams) -> Outcome {
    let mut disk = Disk::open(0).during("disk")?;
    ensure!(disk.has(READ_ONLY), "the disk does not say that it is read-only");
    let mut sector = [0; SECTOR];
    disk.read(0, &mut sector).during("read")?;
    println!(
        "sector 0 starts with {:?}",
        core::str::from_utf8(&core::hint::black_box(&mut sector)[..8]).unwrap_or("?")
    );
    ensure!(disk.write(0, &[0x55; SECTOR]) == IO_ERROR, "a write was not refused");
    ensure!(disk.clear(request::DISCARD, 0, 1).is_err(), "a discard was not refused");
    let mut again = [0; SECTOR];
    disk.read(0, &mut again).during("read")?;
    ensure!(core::hint::black_box(&mut again) == &sector, "the refused write was carried out");
    Ok(())
}
