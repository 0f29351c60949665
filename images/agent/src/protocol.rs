//! The words, as the host has them.

#[path = "../../../protocol/src/agent.rs"]
pub mod agent;
#[path = "../../../protocol/src/seat.rs"]
pub mod seat;
