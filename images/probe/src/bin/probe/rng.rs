//! Entropy.

use guest::params::BootParams;
use guest::println;
use guest::virtio::rng::Rng;

use crate::{During, Outcome, ensure};

/// Two reads differ, and neither is all the same byte.
pub fn differs(_: &BootParams) -> Outcome {
    let mut rng = Rng::open().during("rng")?;
    let mut reads = [[0_u8; 64]; 2];
    for bytes in &mut reads {
        let length = rng.fill(bytes).during("fill")?;
        ensure!(length == 64, "64 bytes were asked for, {length} came");
        core::hint::black_box(&mut *bytes);
        ensure!(bytes.iter().any(|byte| *byte != bytes[0]), "64 equal bytes");
    }
    ensure!(reads[0] != reads[1], "the same bytes twice");
    println!("random {:02x?}", &reads[0][..8]);
    Ok(())
}
