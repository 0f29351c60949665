//! What a machine does for a snapshot: stand still, say what it is, and go on; or begin as one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use yunju_protocol::control::{Afterwards, SnapshotInfo};

use super::{Command, Error, Machine, Running, kvm, lock};
use crate::boot::cpu;
use crate::memory::GuestMemory;
use crate::snapshot::memory::{bridge, data, union};
use crate::snapshot::state::{Description, MemoryState, State, Wish, now};
use crate::snapshot::writer::Plan;
use crate::snapshot::{self, Files, Order, Refusal, Source, generation, memory};
use crate::threads::{self, Kind};
use crate::vcpu::state::check_features;
use crate::vcpu::{Vcpu, Vcpus};
use crate::vm::VmState;

const STACK: usize = 256 * 1024;

/// A snapshot that is being written.
pub struct Taking {
    /// The machine ends with it, and stands still until then.
    pub ends: bool,
    /// It was paused before.
    was_paused: bool,
    /// Disconnected once the client has been answered.
    pub told: Receiver<()>,
}

/// What a snapshot consists of, while the machine stands still.
struct Taken {
    state: State,
    plan: Plan,
}

impl Machine {
    /// Takes a snapshot, or refuses to. It is written meanwhile; [`Command::SnapshotOver`] says how that ended.
    pub(super) fn snapshot(&mut self, order: Order, commands: &Receiver<Command>) {
        let Order { request, mut files, reply, told } = order;
        let ends = request.afterwards == Afterwards::End;
        let began = Instant::now();
        let was_paused = self.is_paused();
        let started = self.may_take(ends, &files).and_then(|()| {
            self.pause();
            let taken = self.take(request.whole, commands).map_err(|error| Refusal::failed(&error))?;
            self.leave_disks(std::mem::take(&mut files.layers))?;
            let job = start(taken, files, ends, self.memory.clone())?;
            if !ends && !was_paused {
                self.resume();
            }
            let (commands, reply) = (self.commands.clone(), reply.clone());
            let pause = began.elapsed();
            let write = move || {
                let outcome = job().map(|info| SnapshotInfo {
                    pause_us: if was_paused { 0 } else { microseconds(if ends { began.elapsed() } else { pause }) },
                    duration_ms: microseconds(began.elapsed()) / 1000,
                    ..info
                });
                let taken = outcome.is_ok();
                answer(&reply, outcome);
                // Without a receiver the machine is ending already.
                let _ = commands.send(Command::SnapshotOver { taken });
            };
            threads::spawn(Kind::Snapshot, "snapshot", STACK, write).map_err(|error| Refusal::failed(&error))?;
            Ok(())
        });
        match started {
            Ok(()) => self.taking = Some(Taking { ends, was_paused, told }),
            Err(refusal) => {
                if !was_paused {
                    self.resume();
                }
                answer(&reply, Err(refusal));
            }
        }
    }

    /// The snapshot has been written, or not. True if the machine ends with it.
    pub(super) fn snapshot_over(&mut self, taken: bool) -> bool {
        let Some(taking) = self.taking.take() else {
            return false;
        };
        if taking.ends && taken {
            // The client gets its answer before this process is gone; or it does not read it.
            let _ = taking.told.recv_timeout(super::PATIENCE);
            return true;
        }
        if taking.ends && !taking.was_paused {
            self.resume();
        }
        self.deferred.drain(..).for_each(|command| drop(self.commands.send(command)));
        false
    }

    fn may_take(&self, ends: bool, files: &Files) -> Result<(), Refusal> {
        if self.taking.is_some() {
            return Err(Refusal::conflict("another snapshot is being written; try again when it is done"));
        }
        let (disks, layers) = (self.config.disks.iter().filter(|disk| !disk.readonly).count(), files.layers.len());
        if layers == disks || ends && layers == 0 {
            return Ok(());
        }
        let need = if ends { "none, or one for each" } else { "one for each" };
        let error = format!("{layers} new layers for {disks} disks that the guest writes to: send {need}");
        Err(Refusal { status: 400, error })
    }

    /// Makes the disks durable as they are, and goes on with new layers if there are any. What can fail otherwise comes
    /// before: there is no way back.
    fn leave_disks(&mut self, layers: Vec<File>) -> Result<(), Refusal> {
        let mut layers = layers.into_iter();
        let disks = self.config.disks.iter().zip(&self.transports).filter(|(disk, _)| !disk.readonly);
        for (disk, transport) in disks {
            let left = match layers.next() {
                Some(layer) => lock(transport).new_layer(layer),
                None => lock(transport).flush(),
            };
            left.map_err(|error| Refusal::unwritten(&format!("disk {}", disk.path.display()), &error))?;
        }
        Ok(())
    }

    /// All of the machine, which stands still.
    fn take(&mut self, whole: bool, commands: &Receiver<Command>) -> Result<Taken, snapshot::Error> {
        // What the guest has asked for already is part of it.
        let waiting: Vec<_> = commands.try_iter().collect();
        for command in waiting {
            if command.is_from_guest() {
                self.held.push(command);
            } else {
                let _ = self.commands.send(command);
            }
        }
        let Some(running) = &self.running else {
            return Err(snapshot::Error::NoSnapshot("the machine is off"));
        };
        let wishes = self.held.iter().map(|command| match command {
            Command::GuestPowerOff => Ok(Wish::PowerOff),
            Command::GuestReset => Ok(Wish::Reset),
            _ => Err(snapshot::Error::NoSnapshot("the guest has crashed")),
        });
        let wishes = wishes.collect::<Result<_, _>>()?;
        let mut transports = Vec::new();
        for (slot, transport) in self.transports.iter().enumerate() {
            let lost = || snapshot::Error::Device { slot, reason: "it is lost; restart the guest".into() };
            transports.push(lock(transport).save().ok_or_else(lost)?);
        }
        let vm = VmState::save(&running.vm)?;
        let taken = now();
        let vcpus = running.vcpus.save(&self.msrs, vm.moment())?;
        let failed = snapshot::Error::io("reading which memory is in use");
        let id = generation::random().map_err(&failed)?;
        generation::mark(&self.memory, &id).map_err(&failed)?;
        let own = self.pagemap.own(&self.memory).map_err(&failed)?;
        let size = self.config.memory.0;
        let (base, extents) = match &self.origin {
            None => (None, own),
            Some(origin) if whole => {
                let below = data(&origin.whole, size).map_err(&failed)?;
                (None, union(&union(&own, &origin.extents), &below))
            }
            Some(origin) => (Some(origin.id), bridge(&union(&own, &origin.extents))),
        };
        let listed = if base.is_some() { extents.clone() } else { Vec::new() };
        let state = State {
            machine: self.description(),
            taken,
            memory: MemoryState { id, base, extents: listed },
            vcpus,
            vm,
            transports,
            serial: self.serial.save(),
            cmos: self.cmos().save(),
            wishes,
        };
        let plan = Plan { regions: memory::regions(&self.memory), extents, skip_zeros: base.is_none(), size };
        Ok(Taken { state, plan })
    }

    fn description(&self) -> Description {
        // Each kind is its virtio id.
        Description::new(&self.config, self.transports.iter().map(|transport| lock(transport).kind() as u32).collect())
    }

    /// Puts a snapshot's memory in the place of an empty one, if it is of this machine.
    pub(super) fn adopt(&mut self, source: Source) -> Result<(), Error> {
        source.state.machine.check(&self.description()).map_err(|error| snapshot::Error::State {
            path: self.config.restore.as_ref().map(|restore| restore.state.clone()).unwrap_or_default(),
            source: error,
        })?;
        let (state, origin) = source.map(&self.memory)?;
        (self.origin, self.restored) = (Some(origin), Some(state));
        Ok(())
    }

    /// Makes the virtual machine as the snapshot says and lets it go on.
    pub(super) fn go_on(&mut self, state: State) -> Result<(), Error> {
        let vm = self.create_vm()?;
        let mut vcpus = Vec::new();
        for (id, saved) in (0..self.config.cpus).zip(&state.vcpus) {
            let cpuid = saved.cpuid_table().map_err(snapshot::Error::from)?;
            let host = cpu::cpuid(&self.kvm, id, self.config.cpus)?;
            check_features(cpuid.as_slice(), host.as_slice()).map_err(snapshot::Error::from)?;
            let fd = vm.create_vcpu(id.into()).map_err(kvm("creating a processor"))?;
            fd.set_cpuid2(&cpuid).map_err(kvm("setting CPUID"))?;
            vcpus.push(Vcpu { fd, cpuid });
        }
        // One moment for the clock and for all counters, so that they stay together.
        let moment = state.vm.restore_clock(&vm, state.taken).map_err(snapshot::Error::from)?;
        let passed = moment.clock.saturating_sub(state.vm.moment().clock);
        for (vcpu, saved) in vcpus.iter().zip(&state.vcpus) {
            saved.restore(&vcpu.fd, passed, moment).map_err(snapshot::Error::from)?;
        }
        state.vm.restore_controllers(&vm).map_err(snapshot::Error::from)?;
        for (slot, (transport, saved)) in self.transports.iter().zip(state.transports).enumerate() {
            let fits = lock(transport).restore(saved);
            fits.map_err(|error| snapshot::Error::Device { slot, reason: error.to_string() })?;
        }
        self.serial.restore(state.serial)?;
        self.cmos().restore(state.cmos);
        generation::renew(&self.memory)?;
        self.generation_changed.write(1)?;
        let vcpus = Vcpus::start(vcpus, &self.buses, &self.commands, &self.exits)?;
        self.running = Some(Running { vcpus, vm, since: Instant::now(), paused: true });
        for wish in state.wishes {
            self.held.push(match wish {
                Wish::PowerOff => Command::GuestPowerOff,
                Wish::Reset => Command::GuestReset,
            });
        }
        self.resume();
        Ok(())
    }
}

/// Begins to write: what is returned ends it, and may take as long as it takes.
fn start(
    taken: Taken,
    files: Files,
    ends: bool,
    memory: Arc<GuestMemory>,
) -> Result<impl FnOnce() -> Result<SnapshotInfo, Refusal>, Refusal> {
    let Taken { state, plan } = taken;
    let child = if ends { None } else { Some(plan.fork(&files.memory).map_err(|error| Refusal::failed(&error))?) };
    Ok(move || {
        let written = match child {
            Some(child) => child.wait(),
            // SAFETY: the machine stands still until this is over, and `memory` keeps its memory mapped even if it
            // is killed meanwhile.
            None => unsafe { plan.carry_out(&files.memory) },
        };
        drop(memory);
        let memory_bytes = written.map_err(|error| Refusal::unwritten("memory", &error))?;
        let differential = state.memory.base.is_some();
        let bytes = state.encode().map_err(|error| Refusal::failed(&error))?;
        let written = files.state.write_all_at(&bytes, 0).and_then(|()| files.state.sync_all());
        written.map_err(|error| Refusal::unwritten("state", &error))?;
        Ok(SnapshotInfo { differential, memory_bytes, state_bytes: bytes.len() as u64, pause_us: 0, duration_ms: 0 })
    })
}

fn microseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn answer(reply: &SyncSender<Result<SnapshotInfo, Refusal>>, outcome: Result<SnapshotInfo, Refusal>) {
    // Who asked may have gone.
    let _ = reply.try_send(outcome);
}
