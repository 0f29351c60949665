//! A machine: how it is put together, and its one life: power on, pause, resume, reset, power off.
//!
//! Devices outlive a reset, the virtual machine does not: [`Machine::power_on`] makes a new one from
//! the same memory, with the same interrupt lines.

mod snapshot;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use yunju_protocol::control::{Counters, MachineInfo, MachineState, MemoryInfo, ScreenSize};
use yunju_protocol::machine::MachineConfig;

use crate::boot::{acpi, cpu, kernel};
use crate::bus::Bus;
use crate::devices::cmos::Cmos;
use crate::devices::i8042::I8042;
use crate::devices::power::Power;
use crate::devices::serial::Serial;
use crate::devices::virtio::transport::{QUEUE_NOTIFY, Transport};
use crate::host::{self, Host};
use crate::layout;
use crate::memory::{self, GuestMemory};
use crate::snapshot::memory::{PAGE, Pagemap};
use crate::snapshot::state::State;
use crate::snapshot::{Order, Origin, Source, generation};
use crate::vcpu::{Buses, Vcpu, Vcpus};

/// All that a machine can be told, by the guest or from outside.
pub enum Command {
    /// Press the power button: the guest is asked to shut down.
    PowerButton,
    /// Stop processors and devices where they are.
    Pause(SyncSender<MachineInfo>),
    /// Let them go on.
    Resume(SyncSender<MachineInfo>),
    /// How the machine is.
    Info(SyncSender<MachineInfo>),
    /// What it did.
    Counters(SyncSender<Counters>),
    /// Take a snapshot.
    Snapshot(Box<Order>),
    /// The snapshot has been written and is durable, or could not be `taken`.
    SnapshotOver {
        /// Whether there is one.
        taken: bool,
    },
    /// What its memory takes of the host's.
    Memory(SyncSender<io::Result<MemoryInfo>>),
    /// Ask the guest to do without so many bytes; `None` if there is no balloon.
    Balloon(u64, SyncSender<Option<io::Result<MemoryInfo>>>),
    /// End it at once.
    Kill,
    /// The guest switched itself off.
    GuestPowerOff,
    /// The guest restarts itself.
    GuestReset,
    /// The guest cannot go on.
    GuestCrash(String),
}

impl Command {
    fn is_from_guest(&self) -> bool {
        matches!(self, Self::GuestPowerOff | Self::GuestReset | Self::GuestCrash(_))
    }

    /// Whether it would change a machine that stands still for its last snapshot.
    fn disturbs(&self) -> bool {
        matches!(self, Self::PowerButton | Self::Pause(_) | Self::Resume(_))
    }
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    PoweredOff,
    /// It restarted itself and was not to.
    Reset,
    /// By request.
    Killed,
    /// By request, with a snapshot to go on from.
    Suspended,
    /// It could not go on.
    Crashed(String),
}

/// Why a machine could not be built or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/kvm` cannot be used.
    #[error("/dev/kvm: {source}; {hint}")]
    NoKvm {
        /// The system's answer.
        source: kvm_ioctls::Error,
        /// What to do.
        hint: &'static str,
    },
    /// KVM refused a part of the machine.
    #[error("KVM: {what}: {source}")]
    Kvm {
        /// Which part.
        what: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// No guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// ACPI tables do not fit.
    #[error("writing ACPI tables: {0}")]
    Acpi(#[from] GuestMemoryError),
    /// Kernel or initrd.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Registers.
    #[error(transparent)]
    Cpu(#[from] cpu::Error),
    /// A file or socket of the host.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// A snapshot to go on from.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshot::Error),
    /// Descriptors or threads.
    #[error("setting up the machine: {0}")]
    Io(#[from] io::Error),
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |source| Error::Kvm { what, source }
}

/// A machine with its devices; off until [`Machine::power_on`].
pub struct Machine {
    /// First, so that no processor's thread is the last to hold a device and has to put it away.
    running: Option<Running>,
    config: MachineConfig,
    kvm: Kvm,
    /// This process as others see it, also from outside of a jail.
    pid: u32,
    files: kernel::Files,
    memory: Arc<GuestMemory>,
    buses: Arc<Buses>,
    transports: Vec<Arc<Mutex<Transport>>>,
    /// Interrupt lines and where they lead.
    lines: Vec<(EventFd, u32)>,
    power_button: EventFd,
    /// Tells the guest that it is another copy now.
    generation_changed: EventFd,
    serial: Serial,
    cmos: Arc<Mutex<Cmos>>,
    host: Host,
    exits: Vec<Arc<AtomicU64>>,
    commands: Sender<Command>,
    /// What the guest said just before it was paused: done when it goes on.
    held: Vec<Command>,
    resets: u32,
    pagemap: Pagemap,
    /// Numbers of the model-specific registers that are part of a processor's state.
    msrs: Vec<u32>,
    /// What memory was when the machine went on from a snapshot; nothing after a reset.
    origin: Option<Origin>,
    /// The snapshot to begin as.
    restored: Option<State>,
    taking: Option<snapshot::Taking>,
    /// What has to wait until a snapshot is written.
    deferred: Vec<Command>,
}

/// How long a client may take to read the last answer of a machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// The virtual machine while it is on. Processors end before what they run in.
struct Running {
    vcpus: Vcpus,
    vm: VmFd,
    since: Instant,
    paused: bool,
}

impl Machine {
    /// Puts a machine together: opens all that it needs, and starts no thread. The guest's own commands go to `commands`.
    pub fn new(config: MachineConfig, commands: Sender<Command>) -> Result<Self, Error> {
        let kvm_fd = open_kvm()?;
        crate::vcpu::prepare_signal()?;
        let msrs = kvm_fd.get_msr_index_list().map_err(kvm("listing model-specific registers"))?.as_slice().to_vec();
        let source = config.restore.as_ref().map(Source::open).transpose()?;
        let files = kernel::Files::open(&config.kernel, config.initrd.as_deref())?;
        let memory = Arc::new(memory::allocate(config.memory)?);
        let (mut ports, mut registers) = (Bus::default(), Bus::default());
        let mut lines = Vec::new();
        let mut line = |gsi: u32| -> io::Result<EventFd> {
            let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            lines.push((event.try_clone()?, gsi));
            Ok(event)
        };

        let (host, serial) = Host::open(&config, line(layout::SERIAL_GSI)?, &commands)?;
        let power_button = line(layout::POWER_BUTTON_GSI)?;
        ports.insert(layout::SERIAL_PORT, 8, Arc::new(Mutex::new(serial.clone())));
        let generation_changed = line(layout::GENERATION_GSI)?;
        let cmos = Arc::new(Mutex::new(Cmos::default()));
        ports.insert(layout::CMOS_PORT, 2, cmos.clone());
        ports.insert(layout::I8042_PORT, 5, Arc::new(Mutex::new(I8042(commands.clone()))));
        ports.insert(layout::POWER_PORT, 3, Arc::new(Mutex::new(Power(commands.clone()))));

        let mut transports = Vec::new();
        for (slot, device) in (0..).zip(host.devices(&config)?) {
            let transport = Transport::new(device, memory.clone(), line(layout::VIRTIO_GSI + slot)?)?;
            let transport = Arc::new(Mutex::new(transport));
            let base = layout::VIRTIO + u64::from(slot) * layout::VIRTIO_SLOT_SIZE;
            registers.insert(base, layout::VIRTIO_SLOT_SIZE, transport.clone());
            transports.push(transport);
        }
        let exits = (0..config.cpus).map(|_| Arc::default()).collect();
        let buses = Arc::new(Buses { ports, registers });
        let mut machine = Self {
            config,
            kvm: kvm_fd,
            pid: std::process::id(),
            files,
            memory,
            buses,
            transports,
            lines,
            power_button,
            generation_changed,
            serial,
            cmos,
            host,
            exits,
            commands,
            running: None,
            held: Vec::new(),
            resets: 0,
            pagemap: Pagemap::open()?,
            msrs,
            origin: None,
            restored: None,
            taking: None,
            deferred: Vec::new(),
        };
        if let Some(source) = source {
            machine.adopt(source)?;
        }
        Ok(machine)
    }

    /// Makes the virtual machine, loads the kernel and lets the processors run.
    pub fn power_on(&mut self) -> Result<(), Error> {
        let vm = self.create_vm()?;
        cpu::write_tables(&self.memory)?;
        // At most `layout::VIRTIO_SLOTS`.
        let rsdp = acpi::write(&self.memory, self.config.cpus, self.transports.len() as u32)?;
        generation::renew(&self.memory)?;
        let entry = kernel::load(&self.memory, &self.files, &self.config.cmdline, rsdp)?;
        let mut vcpus = Vec::new();
        for id in 0..self.config.cpus {
            let fd = vm.create_vcpu(id.into()).map_err(kvm("creating a processor"))?;
            let cpuid = cpu::cpuid(&self.kvm, id, self.config.cpus)?;
            fd.set_cpuid2(&cpuid).map_err(kvm("setting CPUID"))?;
            cpu::set_firmware_state(&fd)?;
            if id == 0 {
                cpu::set_boot_registers(&fd, entry)?;
            }
            vcpus.push(Vcpu { fd, cpuid });
        }
        let vcpus = Vcpus::start(vcpus, &self.buses, &self.commands, &self.exits)?;
        vcpus.resume();
        self.running = Some(Running { vcpus, vm, since: Instant::now(), paused: false });
        Ok(())
    }

    fn create_vm(&self) -> Result<VmFd, Error> {
        let vm = loop {
            match self.kvm.create_vm() {
                // A signal arrived meanwhile.
                Err(error) if error.errno() == libc::EINTR => {}
                other => break other.map_err(kvm("creating a virtual machine"))?,
            }
        };
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(kvm("setting the identity map"))?;
        vm.set_tss_address(layout::KVM_TSS as usize).map_err(kvm("setting the task state segment"))?;
        // Memory before interrupt controllers: the other way round each region waits for a grace period of the kernel.
        for (slot, region) in (0..).zip(self.memory.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                flags: 0,
            };
            // SAFETY: the region is mapped for as long as `self.memory`, which this machine holds longer than the VM.
            unsafe { vm.set_user_memory_region(region) }.map_err(kvm("adding memory"))?;
        }
        vm.create_irq_chip().map_err(kvm("creating interrupt controllers"))?;
        for (line, gsi) in &self.lines {
            vm.register_irqfd(line, *gsi).map_err(kvm("connecting an interrupt line"))?;
        }
        for (slot, transport) in (0u64..).zip(&self.transports) {
            let notify = layout::VIRTIO + slot * layout::VIRTIO_SLOT_SIZE + QUEUE_NOTIFY;
            for (queue, kick) in (0u32..).zip(lock(transport).kicks()) {
                vm.register_ioevent(kick, &IoEventAddress::Mmio(notify), queue)
                    .map_err(kvm("connecting a queue's notification"))?;
            }
        }
        Ok(vm)
    }

    /// Stops the processors, then the devices.
    fn pause(&mut self) {
        if let Some(running) = &mut self.running {
            running.vcpus.pause();
            running.paused = true;
            self.transports.iter().for_each(|transport| lock(transport).pause());
        }
    }

    /// Lets the devices go on, then the processors.
    fn resume(&mut self) {
        if let Some(running) = &mut self.running {
            self.transports.iter().for_each(|transport| lock(transport).resume());
            running.vcpus.resume();
            running.paused = false;
        }
        self.held.drain(..).for_each(|command| drop(self.commands.send(command)));
    }

    fn is_paused(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.paused)
    }

    /// Whether it stands still for its last snapshot.
    fn is_ending(&self) -> bool {
        self.taking.as_ref().is_some_and(|taking| taking.ends)
    }

    fn cmos(&self) -> MutexGuard<'_, Cmos> {
        self.cmos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if switched off and on: memory is empty, devices are as new.
    fn reset(&mut self, commands: &Receiver<Command>) -> Result<(), Error> {
        self.running = None;
        // What the guest said before it stopped, a second processor perhaps, is void; all else is still to be done.
        let others = commands.try_iter().filter(|command| !command.is_from_guest()).collect::<Vec<_>>();
        others.into_iter().for_each(|command| drop(self.commands.send(command)));
        self.transports.iter().for_each(|transport| lock(transport).reset());
        self.serial.reset()?;
        // Also where a snapshot's files were.
        memory::clear(&self.memory, true)?;
        self.origin = None;
        self.resets += 1;
        self.power_on()
    }

    /// Powers the machine on and obeys commands until it ends. `reboot`: a guest may restart itself.
    pub fn run(mut self, commands: &Receiver<Command>, reboot: bool) -> Result<Ending, Error> {
        match self.restored.take() {
            Some(state) => self.go_on(state)?,
            None => self.power_on()?,
        }
        // The machine holds a sender itself, so that there is always a next command.
        while let Ok(command) = commands.recv() {
            match command {
                command if command.is_from_guest() && self.is_paused() => self.held.push(command),
                command if command.disturbs() && self.is_ending() => self.deferred.push(command),
                Command::PowerButton => self.power_button.write(1)?,
                Command::Pause(reply) => {
                    self.pause();
                    answer(&reply, self.info());
                }
                Command::Resume(reply) => {
                    self.resume();
                    answer(&reply, self.info());
                }
                Command::Info(reply) => answer(&reply, self.info()),
                Command::Counters(reply) => answer(&reply, self.counters()),
                Command::Snapshot(order) => self.snapshot(*order, commands),
                Command::SnapshotOver { taken } => {
                    if self.snapshot_over(taken) {
                        return Ok(Ending::Suspended);
                    }
                }
                Command::Memory(reply) => answer(&reply, self.memory_info()),
                Command::Balloon(size, reply) => {
                    let balloon = self.host.balloon().map(|balloon| balloon.resize(size.min(self.config.memory.0)));
                    answer(&reply, balloon.map(|()| self.memory_info()));
                }
                Command::Kill => return Ok(Ending::Killed),
                Command::GuestPowerOff => return Ok(Ending::PoweredOff),
                Command::GuestReset if reboot => self.reset(commands)?,
                Command::GuestReset => return Ok(Ending::Reset),
                Command::GuestCrash(reason) => return Ok(Ending::Crashed(reason)),
            }
        }
        Ok(Ending::Killed)
    }

    fn info(&self) -> MachineInfo {
        let uptime = self.running.as_ref().map_or(0, |running| running.since.elapsed().as_millis());
        MachineInfo {
            state: if self.is_paused() { MachineState::Paused } else { MachineState::Running },
            pid: self.pid,
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            resets: self.resets,
            memory: self.config.memory.0,
            cpus: self.config.cpus,
            screen: self.host.screen_size().map(|(width, height)| ScreenSize { width, height }),
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            vcpu_exits: self.exits.iter().map(|exits| exits.load(Ordering::Relaxed)).collect(),
            ..self.host.counters()
        }
    }

    fn memory_info(&self) -> io::Result<MemoryInfo> {
        let private = self.pagemap.own(&self.memory)?.iter().map(|extent| extent.count * PAGE).sum();
        let (size, balloon) = (self.config.memory.0, self.host.balloon());
        Ok(MemoryInfo {
            size,
            balloon_target: balloon.map_or(0, |balloon| balloon.target()),
            balloon: balloon.map_or(0, |balloon| balloon.actual().min(size)),
            reported: balloon.map_or(0, |balloon| balloon.reported()),
            private,
            available: balloon.and_then(|balloon| balloon.available()).map(|bytes| bytes.min(size)),
        })
    }

    /// Opens what the system tells a process of itself: it becomes another one when it goes to jail.
    pub fn look_at_itself(&mut self) -> io::Result<()> {
        self.pagemap = Pagemap::open()?;
        Ok(())
    }

    /// Starts to serve the display and the serial port.
    pub fn serve(&mut self) -> Result<(), Error> {
        Ok(self.host.serve()?)
    }

    /// The machine's host side, for those who serve its sockets.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

fn answer<T>(reply: &SyncSender<T>, value: T) {
    // Who asked may have gone.
    let _ = reply.try_send(value);
}

fn lock(transport: &Mutex<Transport>) -> MutexGuard<'_, Transport> {
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_kvm() -> Result<Kvm, Error> {
    Kvm::new().map_err(|source| Error::NoKvm {
        source,
        hint: match source.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => {
                "this host offers no virtualization, or its kvm module is not loaded (`yunju doctor` tells more)"
            }
            libc::EACCES | libc::EPERM => "add this user to the group kvm and log in again",
            _ => "`yunju doctor` tells more",
        },
    })
}
