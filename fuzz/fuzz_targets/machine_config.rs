//! A machine's configuration file.
#![no_main]

use yunju_protocol::machine::MachineConfig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(config) = serde_json::from_slice::<MachineConfig>(data) else { return };
    let text = serde_json::to_vec(&config).unwrap();
    assert_eq!(serde_json::from_slice::<MachineConfig>(&text).unwrap(), config);
    let _ = yunju_vmm::config::check(&config);
});
