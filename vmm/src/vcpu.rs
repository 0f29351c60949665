//! Virtual processors: one thread each, the run loop and its exits, and the gate that holds them all.

pub mod counter;
pub mod state;

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_bindings::CpuId;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use self::counter::Moment;
use self::state::VcpuState;
use crate::bus::Bus;
use crate::machine::Command;
use crate::threads::{self, Kind};

/// A kick can arrive just before the processor enters the guest and then be without effect, so it is
/// repeated this often until the processor answers.
const KICK_AGAIN: Duration = Duration::from_millis(2);

const STACK: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Run,
    Hold,
    Leave,
}

/// Holds and releases all processors of a machine.
struct Gate {
    /// Set whenever the phase is not `Run`, to be looked at without a lock before each entry into the guest.
    closed: AtomicBool,
    phase: Mutex<(Phase, usize)>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, (Phase, usize)> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        self.closed.store(phase != Phase::Run, Ordering::SeqCst);
        self.lock().0 = phase;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Called by a processor's thread: waits while held. False when it must leave.
    fn pass(&self) -> bool {
        if !self.is_closed() {
            return true;
        }
        let mut state = self.lock();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 == Phase::Hold {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.1 -= 1;
        state.0 == Phase::Run
    }
}

/// The buses that exits lead to.
pub struct Buses {
    /// I/O ports.
    pub ports: Bus,
    /// Memory-mapped registers.
    pub registers: Bus,
}

/// A processor and what it was made to claim that it is.
pub struct Vcpu {
    /// The processor.
    pub fd: VcpuFd,
    /// Its CPUID table as it was set: KVM tells another one back.
    pub cpuid: CpuId,
}

/// Makes the signal that calls processors out of the guest do nothing else. Must be done once, before the first runs.
pub fn prepare_signal() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    Ok(register_signal_handler(SIGRTMIN(), nothing)?)
}

/// All processors of a running machine.
pub struct Vcpus {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    /// Each belongs to its thread while the gate is open, and to nobody while it is closed.
    vcpus: Vec<Arc<Mutex<Vcpu>>>,
}

impl Vcpus {
    /// Starts a thread for each processor, held. `exits` counts each one's exits to this process.
    pub fn start(
        vcpus: Vec<Vcpu>,
        buses: &Arc<Buses>,
        commands: &Sender<Command>,
        exits: &[Arc<AtomicU64>],
    ) -> io::Result<Self> {
        let gate = Arc::new(Gate {
            closed: AtomicBool::new(true),
            phase: Mutex::new((Phase::Hold, 0)),
            changed: Condvar::new(),
        });
        let vcpus: Vec<_> = vcpus.into_iter().map(|vcpu| Arc::new(Mutex::new(vcpu))).collect();
        let mut started = Self { gate, threads: Vec::new(), vcpus };
        for (index, (vcpu, exits)) in started.vcpus.iter().cloned().zip(exits).enumerate() {
            let (gate, buses) = (started.gate.clone(), buses.clone());
            let (commands, exits) = (commands.clone(), exits.clone());
            let thread = threads::spawn(Kind::Vcpu, format!("vcpu{index}"), STACK, move || {
                if let Err(reason) = run(&vcpu, &gate, &buses, &exits) {
                    // Without a receiver the machine is ending already.
                    let _ = commands.send(Command::GuestCrash(format!("processor {index}: {reason}")));
                }
            });
            started.threads.push(thread?);
        }
        Ok(started)
    }

    /// Stops every processor between two instructions; returns when all have. Idempotent.
    pub fn pause(&self) {
        self.gate.set(Phase::Hold);
        let mut state = self.gate.lock();
        while state.1 < self.threads.iter().filter(|thread| !thread.is_finished()).count() {
            drop(state);
            self.kick();
            state = self.gate.lock();
            state = self.gate.changed.wait_timeout(state, KICK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The state of each processor, with the model-specific registers `msrs`, and with its counter as it was at `moment`. They must be paused.
    pub fn save(&self, msrs: &[u32], moment: Moment) -> Result<Vec<VcpuState>, state::Error> {
        self.vcpus.iter().map(|vcpu| VcpuState::save(&lock(vcpu), msrs, moment)).collect()
    }

    /// Lets the processors run. Idempotent.
    pub fn resume(&self) {
        self.gate.set(Phase::Run);
    }

    fn kick(&self) {
        for thread in self.threads.iter().filter(|thread| !thread.is_finished()) {
            // SAFETY: the handle keeps the thread's id valid until it is joined, and the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.gate.set(Phase::Leave);
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            self.kick();
            thread::sleep(KICK_AGAIN / 4);
        }
        for thread in self.threads.drain(..) {
            // A processor thread that panicked has ended all the same.
            let _ = thread.join();
        }
    }
}

fn lock(vcpu: &Mutex<Vcpu>) -> MutexGuard<'_, Vcpu> {
    vcpu.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a processor until it must leave, or tells why it cannot go on.
fn run(vcpu: &Mutex<Vcpu>, gate: &Gate, buses: &Buses, exits: &AtomicU64) -> Result<(), String> {
    while gate.pass() {
        let vcpu = &mut lock(vcpu).fd;
        while !gate.is_closed() {
            step(vcpu, buses, exits)?;
        }
        // KVM completes an instruction that left the guest at the next entry only: until then registers are
        // those of its middle. An entry that ends before the guest's next instruction does that.
        vcpu.set_kvm_immediate_exit(1);
        while step(vcpu, buses, exits)? {}
        vcpu.set_kvm_immediate_exit(0);
    }
    Ok(())
}

/// Enters the guest once and serves its exit; false if there was none.
fn step(vcpu: &mut VcpuFd, buses: &Buses, exits: &AtomicU64) -> Result<bool, String> {
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        // A kick; or a processor that was just started and must be entered again.
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Ok(false),
        Err(error) => return Err(format!("KVM cannot run it: {error}")),
    };
    exits.fetch_add(1, Ordering::Relaxed);
    match exit {
        VcpuExit::IoIn(port, data) => buses.ports.read(port.into(), data),
        VcpuExit::IoOut(port, data) => buses.ports.write(port.into(), data),
        VcpuExit::MmioRead(address, data) => buses.registers.read(address, data),
        VcpuExit::MmioWrite(address, data) => buses.registers.write(address, data),
        VcpuExit::Shutdown => return Err("triple fault".into()),
        VcpuExit::InternalError => {
            let at = vcpu.get_regs().map_or(0, |registers| registers.rip);
            return Err(format!("this host's KVM cannot run the instruction at {at:#x}"));
        }
        VcpuExit::FailEntry(reason, cpu) => {
            return Err(format!("the hardware refused to enter the guest: {reason:#x} on CPU {cpu}"));
        }
        VcpuExit::Intr => return Ok(false),
        VcpuExit::Hlt => {}
        other => return Err(format!("unexpected exit {other:?}")),
    }
    Ok(true)
}
