//! A machine and a viewer of ours, for tests.

pub mod client;
#[allow(dead_code, reason = "each test uses a part of it")]
pub mod decode;
pub mod machine;
