#!/usr/bin/python3
"""The lab's machine: QEMU, its saved state, and the command that runs in it.

    machine.py save --root FOLDER --boot FOLDER          boots and saves FOLDER/state
    machine.py run  --root FOLDER --boot FOLDER …        runs a command; see `ci/lab help`

`ci/lab` calls it; guest/agent.py is the other end and describes the frames that the two exchange.
"""

import argparse
import ctypes
import fcntl
import json
import os
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty

MEMORY_MIB = 5120
DATA_BYTES = 32 << 30
BOOT_SECONDS = 300
RESUME_SECONDS = 60
END_SECONDS = 30
INPUT_WINDOW = 64 * 1024
CHUNK = 64 * 1024
PIPE_ATOMIC = 4096  # what a pipe that polls writable takes without blocking (PIPE_BUF)
FAILED, TIMED_OUT = 125, 124


class LabError(Exception):
    """The lab cannot run the command; the text says why."""


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def die_with_parent():
    """In the child: the kernel kills it when this process ends, however it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Monitor:
    """QEMU's control channel (QMP)."""

    def __init__(self, connection):
        self.connection = connection
        self.lines = connection.makefile("rb")
        self.lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        while line := self.lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
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
        except (LabError, ConnectionError):
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
        *accelerator, "-M", "q35", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", str(MEMORY_MIB),
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
                request = json.dumps({"execute": "getfd", "arguments": {"fdname": "state"}}).encode()
                socket.send_fds(monitor.connection, [request], [state.fileno()])
                while "return" not in (answer := json.loads(monitor.lines.readline())):
                    if "error" in answer:
                        raise LabError(f"QEMU refused the state file: {answer['error']['desc']}")
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
    """A machine whose agent waits for an order: resumed if that is possible, booted otherwise."""
    if not options.cold:
        try:
            state = open(f"{options.boot}/state", "rb")
        except FileNotFoundError:
            say("there is no saved lab; booting one")
        else:
            with state:
                machine = Machine(options, data, shares, state=state)
            try:
                machine.monitor.wait("query-status", lambda now: now["status"] != "inmigrate", RESUME_SECONDS)
                return machine, False
            except (LabError, ConnectionError) as error:
                say(f"the saved lab does not resume ({error}); booting one\n{machine.console_tail(5)}")
                machine.end()
    return Machine(options, data, shares, icount=options.icount), True


class Session:
    """The host's end of one command in the lab."""

    def __init__(self, machine):
        self.machine = machine
        self.channel = machine.channel
        self.received = bytearray()
        self.outputs = {b"O": Output(1), b"E": Output(2)}
        self.in_flight = 0
        self.input_open = False
        self.deadline = None
        self.reason = None
        self.signals = 0

    def send(self, kind, payload=b""):
        try:
            self.channel.sendall(struct.pack(">cI", kind, len(payload)) + payload)
        except OSError:
            raise self.gone() from None

    def gone(self):
        return LabError(f"the lab's machine ended by itself; the last of its console:\n{self.machine.console_tail()}")

    def frames(self):
        """Reads once and gives the frames that are complete."""
        try:
            data = self.channel.recv(CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            raise self.gone()
        self.received += data
        while len(self.received) >= 5:
            kind, length = struct.unpack_from(">cI", self.received)
            if len(self.received) < 5 + length:
                break
            payload = bytes(self.received[5:5 + length])
            del self.received[:5 + length]
            if kind == b"F":
                raise LabError(payload.decode(errors="replace"))
            yield kind, payload

    def expect(self, wanted, seconds):
        """Waits for one frame while nothing else is going on."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            while selector.select(deadline - time.monotonic()):
                if any(kind == wanted for kind, _ in self.frames()):
                    return
        raise LabError(f"the lab said nothing for {seconds} s; the last of its console:\n{self.machine.console_tail()}")

    def run(self, wakeup, timeout):
        """Carries input, output and signals until the command has ended; gives the exit status."""
        if timeout:
            self.deadline = time.monotonic() + timeout
        self.input_open = True
        while True:
            with selectors.PollSelector() as selector:
                selector.register(wakeup, selectors.EVENT_READ)
                blocked = [output for output in self.outputs.values() if output.pending]
                for output in blocked:
                    selector.register(output.fd, selectors.EVENT_WRITE)
                if not blocked:
                    selector.register(self.channel, selectors.EVENT_READ)
                if self.input_open and self.in_flight < INPUT_WINDOW:
                    self.watch_input(selector)
                wait = None if self.deadline is None else max(0, self.deadline - time.monotonic())
                ready = [key.fileobj for key, _ in selector.select(wait)]
            if self.deadline is not None and time.monotonic() >= self.deadline:
                if not self.end_by(signal.SIGTERM, f"not finished after {timeout} s", TIMED_OUT):
                    return self.reason
            for output in blocked:
                if output.fd in ready and not output.write():
                    self.send(b"C", b"O" if output.fd == 1 else b"E")
            if wakeup in ready:
                for number in os.read(wakeup, 64):
                    if not self.signalled(number):
                        return self.reason
            if 0 in ready:
                self.feed()
            if self.channel in ready:
                for kind, payload in self.frames():
                    if kind == b"X":
                        self.flush()
                        return self.reason if self.reason == TIMED_OUT else int(payload)
                    if kind == b"A":
                        self.in_flight -= int(payload)
                    elif kind in self.outputs:
                        self.outputs[kind].pending += payload

    def watch_input(self, selector):
        try:
            selector.register(0, selectors.EVENT_READ)
        except (ValueError, OSError):
            self.feed()

    def feed(self):
        try:
            data = os.read(0, min(CHUNK, INPUT_WINDOW - self.in_flight))
        except OSError:  # closed, or a terminal that another job owns
            data = b""
        self.in_flight += len(data)
        self.input_open = bool(data)
        self.send(b"I", data)

    def signalled(self, number):
        """Passes a signal on. False when it is time to kill the machine instead."""
        if number == signal.SIGWINCH:
            size = os.get_terminal_size(0)
            self.send(b"W", f"{size.lines} {size.columns}".encode())
            return True
        if number not in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            return True
        self.signals += 1
        if self.signals > 2:
            self.reason = 128 + number
            return False
        self.send(b"S", str(int(number)).encode())
        if self.reason is None:
            self.reason = 128 + number
            self.deadline = time.monotonic() + END_SECONDS
        return True

    def end_by(self, number, why, reason):
        """The deadline has passed: asks the command to end. False when it had been asked before."""
        if self.reason is not None:
            say(f"the command did not end within {END_SECONDS} s of being asked to; killing the lab")
            return False
        say(f"{why}; ending the command")
        self.reason = reason
        self.deadline = time.monotonic() + END_SECONDS
        self.send(b"S", str(int(number)).encode())
        return True

    def flush(self):
        for output in self.outputs.values():
            while output.pending and output.write():
                pass


class Output:
    """Standard output or error of ours. Written only as fast as it is read, and never blocked on."""

    def __init__(self, fd):
        self.fd = fd
        self.open = True
        self.pending = bytearray()

    def write(self):
        """False when nobody reads any more."""
        if self.open:
            try:
                written = os.write(self.fd, self.pending[:PIPE_ATOMIC])
                del self.pending[:written]
                return True
            except OSError:
                self.open = False
        self.pending.clear()
        return False


def environment(cache):
    kept = {
        name: value for name, value in os.environ.items()
        if name in ("TERM", "COLORTERM", "RUST_LOG", "RUST_BACKTRACE") or name.startswith("YUNJU_")
    }
    return {
        **kept, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "YUNJU_CACHE": cache, "YUNJU_LAB": "1",
    }


def forward(machine, pair):
    host, guest = pair
    said = machine.monitor.execute(
        "human-monitor-command", **{"command-line": f"hostfwd_add net tcp:127.0.0.1:{host}-10.0.2.15:{guest}"})
    if said.strip():
        raise LabError(f"cannot forward port {host}: {said.strip()} (is it in use?)")


def run(options):
    shares = [("checkout", options.checkout), ("cache", options.cache)]
    here = os.getcwd()
    if not any(here == path or here.startswith(path + "/") for _, path in shares):
        raise LabError(f"{here}: only {options.checkout} and {options.cache} exist in the lab; run from there")
    window = None
    if options.tty:
        if not (os.isatty(0) and os.isatty(1)):
            raise LabError("a shell needs a terminal; use `ci/lab run` for scripts")
        size = os.get_terminal_size(0)
        window = [size.lines, size.columns]
    # From here on signals are only noted; until the command begins they end the lab.
    wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    machine = None
    terminal = None
    with (kept_disk(options.data) if options.data else throwaway_disk(options)) as data:
        try:
            machine, cold = wake(options, data, shares)
            session = Session(machine)
            for pair in options.forward:
                forward(machine, pair)
            if cold:
                session.expect(b"H", BOOT_SECONDS)
            else:
                machine.monitor.execute("cont")
            order = {
                "argv": options.command, "cwd": here, "env": environment(options.cache), "window": window,
                "shares": shares, "data": True, "time": time.time(), "seed": secrets.token_hex(64),
            }
            session.send(b"R", json.dumps(order).encode())
            session.expect(b"B", BOOT_SECONDS if cold else RESUME_SECONDS)
            signal.set_wakeup_fd(wakeup_write)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
                signal.signal(number, lambda *_: None)
            if window:
                terminal = termios.tcgetattr(0)
                tty.setraw(0)
            return session.run(wakeup, options.timeout)
        finally:
            if terminal:
                termios.tcsetattr(0, termios.TCSADRAIN, terminal)
            if machine:
                machine.end()


def port_pair(text):
    host, _, guest = text.partition(":")
    if not (host.isdecimal() and guest.isdecimal() and 0 < int(host) < 65536 and 0 < int(guest) < 65536):
        raise argparse.ArgumentTypeError(f"{text}: want HOSTPORT:GUESTPORT")
    return int(host), int(guest)


def arguments():
    parser = argparse.ArgumentParser(prog="ci/lab", usage="ci/lab help")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("save", "run"):
        one = verbs.add_parser(verb, usage="ci/lab help")
        one.add_argument("--root", required=True)
        one.add_argument("--boot", required=True)
    one.add_argument("--checkout", required=True)
    one.add_argument("--cache", required=True)
    one.add_argument("--forward", type=port_pair, action="append", default=[])
    one.add_argument("--data")
    one.add_argument("--timeout", type=float)
    one.add_argument("--tty", action="store_true")
    one.add_argument("--cold", action="store_true")
    one.add_argument("--icount", action="store_true")
    one.add_argument("command", nargs="+")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        sys.exit(save(options) if options.verb == "save" else run(options))
    except (LabError, OSError) as error:
        say(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
