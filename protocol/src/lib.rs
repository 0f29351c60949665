//! The words Yunju's processes say to each other.
//!
//! * [`machine`]: what a machine is made of; the VMM's configuration file.
//! * [`display`]: pixels, damage and cursor one way, input the other, between a machine and whoever shows it.
//! * [`control`]: the bodies of the VMM's HTTP control API.
//! * [`agent`]: what the host and the agent in a guest tell each other.
//! * [`seat`]: what the agent in a person's session and the proxy tell each other.
//! * [`page`]: what the proxy and a browser's page tell each other beside the screen.
//! * [`viewer`]: who looks at a screen and what they may there, as the service tells the proxy.
//!
//! This crate holds types and their wire form. It depends on no other crate of ours.

pub mod agent;
pub mod control;
pub mod display;
pub mod machine;
pub mod page;
pub mod seat;
pub mod viewer;
