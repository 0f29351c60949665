//! The service behind `yunju serve`: users, desktops, images, and the processes that run them.
//!
//! * [`store`]: what is remembered. * [`machines`]: what runs. * [`moments`]: what can be gone back to. * [`images`], [`folder`], [`layers`], [`snapshots`]: what is on disk.
//! * [`api`]: HTTP for programs; [`web`]: pages for people; [`edge`]: the way from a browser to a desktop's proxy; [`viewers`]: who uses it.
//! * [`thumbnails`]: small pictures of desktops. * [`origins`], [`tickets`]: host names, and how a desktop is opened on one of its own.
//! * [`operations`]: work that takes a while. * [`trash`]: what was deleted. * [`warm`]: desktops that need not boot.
//! * [`metrics`]: what there is to count. * [`meter`]: what desktops use.
//! * [`serve`]: all of it, listening. * [`tls`]: HTTPS. * [`model`], [`http`]: for clients.

pub mod api;
pub mod auth;
pub mod edge;
pub mod folder;
pub mod http;
pub mod images;
pub mod layers;
pub mod machines;
pub mod meter;
pub mod metrics;
pub mod model;
pub mod moments;
pub mod names;
pub mod operations;
pub mod origins;
pub mod serve;
pub mod service;
pub mod snapshots;
pub mod store;
pub mod thumbnails;
pub mod tickets;
pub mod tls;
pub mod trash;
pub mod viewers;
pub mod warm;
pub mod web;
