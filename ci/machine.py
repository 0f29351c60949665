"""The lab's machine: one QEMU, its disks, and its saved state."""

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from session import BOOT_SECONDS, LabError, Session, say

MEMORY_MIB = 5120
DATA_BYTES = 32 << 30
RESUME_SECONDS = 60


def die_with_parent():
    """In the child: the kernel kills it when this process ends, however it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Monitor:
    """QEMU's control channel (QMP)."""

    def __init__(self, connection):
        self.connection = connection
        self.lines = connection.makefile("rb")
        try:
            self.lines.readline()  # its greeting
        except ConnectionError:
            pass
        self.execute("qmp_capabilities")

    def execute(self, command, fds=(), **arguments):
        request = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            socket.send_fds(self.connection, [request], fds)
            while line := self.lines.readline():
                answer = json.loads(line)
                if "error" in answer:
                    raise LabError(f"QEMU refused {command}: {answer['error']['desc']}")
                if "return" in answer:
                    return answer["return"]
        except ConnectionError:
            pass
        raise LabError(f"QEMU ended while it was asked for {command}")

    def wait(self, command, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition(answer := self.execute(command)):
            if time.monotonic() > deadline:
                raise LabError(f"QEMU took more than {seconds} s: {command} still says {answer}")
            time.sleep(0.02)


class Machine:
    """One QEMU. It lives no longer than this process."""

    def __init__(self, files, data, shares, icount=False, state=None):
        self.console = tempfile.TemporaryFile()
        self.channel, channel = socket.socketpair()
        monitor_end, monitor = socket.socketpair()
        command = command_line(files, data, shares, icount, channel.fileno(), monitor.fileno())
        passed = [channel.fileno(), monitor.fileno(), data.fileno()]
        if state is not None:
            command += ["-incoming", f"fd:{state.fileno()}"]
            passed.append(state.fileno())
        try:
            self.process = subprocess.Popen(
                command, pass_fds=passed, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console,
                start_new_session=True, preexec_fn=die_with_parent)
        except FileNotFoundError:
            raise LabError("qemu-system-x86_64 is not installed; run ci/setup lab") from None
        channel.close()
        monitor.close()
        try:
            self.monitor = Monitor(monitor_end)
        except LabError:
            self.end()
            raise LabError(f"QEMU did not start:\n{self.console_tail()}") from None

    def console_tail(self, lines=30):
        """The last lines of the guest's console and of QEMU's own messages."""
        self.console.seek(0)
        text = self.console.read().decode(errors="replace").replace("\r", "")
        return "\n".join(text.rstrip().split("\n")[-lines:])

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def command_line(files, data, shares, icount, channel, monitor):
    """QEMU's. What a saved state depends on is the same in every run; only descriptors and paths differ."""
    accelerator = ["-accel", "tcg,thread=single,tb-size=1024"]
    if icount:
        accelerator += ["-icount", "shift=0,sleep=off"]
    named = os.fstat(data.fileno()).st_nlink > 0
    caching = "writeback" if named else "unsafe"
    command = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *accelerator, "-M", "q35", "-cpu", "EPYC,+svm,+npt,check=off", "-smp", "1", "-m", str(MEMORY_MIB),
        "-kernel", f"{files.root}/vmlinuz", "-initrd", f"{files.boot}/initrd",
        "-append", "console=hvc0 panic=-1 quiet loglevel=3 mitigations=off",
        "-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control",
        "-device", "virtio-serial-pci",
        "-chardev", "stdio,id=console,signal=off", "-device", "virtconsole,chardev=console",
        "-chardev", f"socket,id=agent,fd={channel}", "-device", "virtserialport,chardev=agent,name=yunju.lab",
        "-drive", f"if=none,id=root,format=raw,readonly=on,file={files.root}/root.erofs",
        "-device", "virtio-blk-pci,drive=root",
        "-drive", f"if=none,id=data,format=raw,discard=unmap,cache={caching},file=/proc/self/fd/{data.fileno()}",
        "-device", "virtio-blk-pci,drive=data",
        "-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
    ]
    for tag, path in shares:
        path = path.replace(",", ",,")
        command += [
            "-fsdev", f"local,id={tag},security_model=none,multidevs=remap,path={path}",
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]
    return command


def throwaway_disk(files):
    """A data disk without a name: it is gone when the last process that has it open ends."""
    with tempfile.NamedTemporaryFile(dir=files.boot, prefix="data.") as named:
        named.truncate(DATA_BYTES)
        format_disk(named.name)
        return open(named.name, "r+b")


def kept_disk(path):
    """The data disk at `path`, made when it does not exist, locked against a second lab."""
    disk = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(disk, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LabError(f"{path}: another lab uses this data disk") from None
    size = os.fstat(disk.fileno()).st_size
    if size == 0:
        say(f"{path}: making a new data disk")
        disk.truncate(DATA_BYTES)
        try:
            format_disk(path)
        except LabError:
            disk.truncate(0)
            raise
    elif size != DATA_BYTES:
        raise LabError(f"{path}: a data disk has {DATA_BYTES} bytes, this file has {size}")
    return disk


def format_disk(path):
    made = subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=0,discard", path],
        capture_output=True, text=True, check=False)
    if made.returncode:
        raise LabError(f"mke2fs {path}: {made.stderr.strip()}")


def save(files):
    """Boots the lab and keeps it, booted, in `boot/state`."""
    with tempfile.TemporaryFile(dir=files.boot) as data, tempfile.TemporaryDirectory() as nothing:
        data.truncate(DATA_BYTES)
        machine = Machine(files, data, [("checkout", nothing), ("cache", nothing)])
        try:
            Session(machine).expect(b"H", BOOT_SECONDS)
            monitor = machine.monitor
            monitor.execute("stop")
            monitor.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            partial = f"{files.boot}/state.partial"
            with open(partial, "wb") as state:
                monitor.execute("getfd", fds=[state.fileno()], fdname="state")
                monitor.execute("migrate", uri="fd:state")
                monitor.wait("query-migrate", finished_saving, BOOT_SECONDS)
                os.fsync(state.fileno())
            os.rename(partial, f"{files.boot}/state")
        finally:
            machine.end()


def finished_saving(answer):
    if answer.get("status") in ("failed", "cancelled"):
        raise LabError(f"QEMU could not save the lab: {answer.get('error-desc', 'no reason given')}")
    return answer.get("status") == "completed"


def wake(options, data, shares):
    """A machine whose agent waits for an order, and whether it is still booting: resumed if possible, else booted."""
    if not options.cold:
        try:
            return resume(options, data, shares), False
        except FileNotFoundError:
            say("there is no saved lab; booting one")
        except LabError as error:
            say(f"the saved lab does not resume, so it is removed and another one booted: {error}")
            os.unlink(f"{options.boot}/state")
    return Machine(options, data, shares, icount=options.icount), True


def resume(options, data, shares):
    """The saved machine, loaded and halted."""
    with open(f"{options.boot}/state", "rb") as state:
        machine = Machine(options, data, shares, state=state)
    try:
        machine.monitor.wait("query-status", lambda now: now["status"] != "inmigrate", RESUME_SECONDS)
    except LabError as error:
        machine.end()
        raise LabError(f"{error}\n{machine.console_tail(3)}") from None
    return machine
