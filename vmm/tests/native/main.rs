//! The VMM on the `/dev/kvm` of this computer, with the probe guests of `images/probe`: real drivers,
//! real interrupts, real ends. See `images/probe/README.md` for what each probe test does.

mod balloon;
mod boot;
mod devices;
mod disks;
mod hostile;
mod jail;
mod lifecycle;
mod machine;
mod screen;
mod snapshot;
mod snapshot_devices;
mod snapshot_faults;
mod snapshot_files;
mod sound;
mod usage;
mod viewer;
