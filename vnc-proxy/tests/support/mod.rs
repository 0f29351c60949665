//! A machine and a viewer of ours, and a proxy between them, for tests.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod client;
pub mod decode;
pub mod frames;
pub mod lab;
pub mod link;
pub mod machine;
