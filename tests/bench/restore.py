"""restore: going on from a snapshot, and forking a running machine, natively with the probe and card guests."""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time

from figures import ROOT, Figure, Missing, program
from lab import processes

ROUNDS = 15
FORKS = (1, 5, 10)
PATIENCE = 60
# Display protocol: the first byte of a packet is the event's number.
FRAME = 3


def guest(name):
    """A guest of images/probe, built if need be."""
    source = os.path.join(ROOT, "images/probe")
    built = subprocess.run(["cargo", "build", "--quiet", "--release", "--locked"], cwd=source)
    if built.returncode != 0:
        raise Missing("images/probe does not build")
    return os.path.join(source, "target/release", name)


class Machine:
    """A monitor with a guest. `line` waits for a line of its serial port."""

    def __init__(self, folder, kernel, *flags, memory="256M", cmdline="", restore=None):
        self.control = os.path.join(folder, f"{time.monotonic_ns()}.sock")
        command = [program("yunju-vmm"), "run", "--kernel", kernel, "--cmdline", cmdline, "--memory", memory,
                   "--serial", "stdio", "--control", f"unix:{self.control}", *flags]
        if restore:
            command += ["--restore", restore]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def line(self, text):
        lines = self.process.stdout
        while line := lines.readline():
            if text.encode() in line:
                return line
        raise Missing(f"the guest ended before it said {text}")

    def first_byte_ms(self):
        if not self.process.stdout.read(1):
            raise Missing("the restored guest said nothing")
        return (time.monotonic() - self.started) * 1000

    def snapshot(self, to, *flags):
        command = [program("yunju-vmm"), "snapshot", "--control", f"unix:{self.control}", "--to", to, *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise Missing("no snapshot")
        return json.loads(done.stdout)

    def pss_mib(self):
        """Of the monitor and of the process that watches over it."""
        kib = 0
        for pid in processes.of(self.process.pid):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                kib += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return kib / 1024

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.stdout.close()
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def running(*arguments, **options):
    machine = Machine(*arguments, **options)
    try:
        yield machine
    finally:
        machine.end()


def drain(machine, name):
    """A snapshot of a guest that talks without a pause, which somebody must listen to."""
    listener = subprocess.Popen(["cat"], stdin=machine.process.stdout, stdout=subprocess.DEVNULL)
    try:
        machine.snapshot(name)
    finally:
        listener.kill()
        listener.wait()


def forget(folder):
    """Drops a snapshot's files from the page cache; they are on the disk."""
    for name in ("state", "memory"):
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def first_exit():
    """from the monitor's start to the first exit of a restored guest that talks without a pause"""
    kernel = guest("probe")
    for size in (256, 1024, 2048):
        options = {"memory": f"{size}M"}
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "snapshot")
            with running(folder, kernel, cmdline=f"test=life chatter=1 fill={size // 4}", **options) as machine:
                # The first dot comes when memory is filled.
                machine.line("PROBE START")
                machine.first_byte_ms()
                drain(machine, name)
            for cache in ("warm", "cold"):
                times = []
                for _ in range(ROUNDS):
                    if cache == "cold":
                        forget(name)
                    with running(folder, kernel, restore=name, **options) as machine:
                        times.append(machine.first_byte_ms())
                suffix = "" if (size, cache) == (1024, "warm") else f".{size}_{cache}"
                yield Figure(f"restore.first_exit_ms{suffix}", statistics.median(times), "ms", len(times))


def pause():
    """how long a fork stops a machine of 1 GiB that wrote 100 MiB since it was restored"""
    kernel = guest("probe")
    with tempfile.TemporaryDirectory() as folder:
        base, fork = os.path.join(folder, "base"), os.path.join(folder, "fork")
        with running(folder, kernel, memory="1G", cmdline="test=life fill=100") as machine:
            machine.line("STEP")
            machine.snapshot(base, "--end")
        pauses = []
        with running(folder, kernel, memory="1G", restore=base) as machine:
            for number in range(ROUNDS):
                machine.process.stdin.write(b"d")
                machine.line("DIRTIED")
                info = machine.snapshot(f"{fork}{number}")
                if not info["differential"] or info["memory_bytes"] < 100 << 20:
                    raise Missing(f"a fork that wrote {info['memory_bytes']} bytes")
                pauses.append(info["pause_us"] / 1000)
                os.remove(os.path.join(f"{fork}{number}", "memory"))
        yield Figure("fork.pause_ms", statistics.median(pauses), "ms", len(pauses))
        yield Figure("fork.pause_ms.max", max(pauses), "ms", len(pauses))


def memory():
    """memory of idle forks of a guest of 1 GiB that uses 100 MiB, beside one that booted"""
    kernel = guest("probe")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        base = os.path.join(folder, "base")
        idle = "test=life fill=100 rest=200"
        booted = stack.enter_context(running(folder, kernel, memory="1G", cmdline=idle))
        booted.line("STEP 5")
        boot = booted.pss_mib()
        booted.snapshot(base)
        forks = []
        for count in FORKS:
            while len(forks) < count:
                fork = stack.enter_context(running(folder, kernel, memory="1G", restore=base))
                for _ in range(5):
                    fork.line("STEP")
                forks.append(fork)
            each = sum(fork.pss_mib() for fork in forks) / count
            if count == FORKS[-1]:
                yield Figure("fork.memory_ratio", each, "MiB", count, "a boot of the same guest", boot)
            else:
                yield Figure(f"fork.memory_mib.{count}", each, "MiB", count)


def first_frame():
    """from the monitor's start to the first frame of the restored card guest at a display client"""
    kernel = guest("card")
    with tempfile.TemporaryDirectory() as folder:
        name, path = os.path.join(folder, "snapshot"), os.path.join(folder, "0.sock")
        with running(folder, kernel, "--display", f"unix:{path},1280x800") as machine:
            machine.line("CARD READY")
            machine.snapshot(name, "--end")
        times = []
        for number in range(ROUNDS):
            # Its own socket: the machine before may still be on its way out.
            path = os.path.join(folder, f"{number + 1}.sock")
            with running(folder, kernel, "--display", f"unix:{path},1280x800", restore=name) as machine:
                with viewer(path) as client:
                    while client.recv(65536)[0] != FRAME:
                        pass
                times.append((time.monotonic() - machine.started) * 1000)
        yield Figure("restore.first_frame_ms", statistics.median(times), "ms", len(times), where="native, card guest")


def viewer(path):
    """A connection to a display socket, as soon as there is one."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(PATIENCE)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            client.connect(path)
            return client
        time.sleep(0.0005)
    raise Missing("the restored machine has no display socket")


parts = [first_exit, pause, memory, first_frame]
