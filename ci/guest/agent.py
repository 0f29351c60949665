"""Process 1 of the lab: runs one command for the host.

The two talk over a virtio-serial port in frames: a letter, the length of the payload (4 bytes, big
endian), the payload.

    host to guest                              guest to host
    R  run: JSON, see Job                      H  booted, waiting for R
    I  input; an empty one is its end          B  the command begins
    S  signal: its number                      O  standard output
    W  window size: "ROWS COLUMNS"             E  standard error
    C  close an output: "O" or "E"             A  input taken: number of bytes
                                               X  ended: exit status, everything unmounted
                                               F  cannot run: why
"""

import ctypes
import fcntl
import json
import os
import pty
import selectors
import signal
import struct
import sys
import termios
import time

PORT = "yunju.lab"
CHUNK = 64 * 1024
END_GRACE = 3.0
BLKFLSBUF = 0x1261
RNDRESEEDCRNG = 0x5207


class Failure(Exception):
    """The lab, not the command, went wrong."""


class Channel:
    """Frames over the virtio-serial port."""

    def __init__(self):
        self.fd = os.open(self._device(), os.O_RDWR | os.O_CLOEXEC)
        self.received = bytearray()

    @staticmethod
    def _device():
        ports = "/sys/class/virtio-ports"
        for port in os.listdir(ports):
            try:
                with open(f"{ports}/{port}/name") as name:
                    if name.read().strip() == PORT:
                        return f"/dev/{port}"
            except FileNotFoundError:
                pass
        raise Failure(f"no virtio-serial port is named {PORT}")

    def send(self, kind, payload=b""):
        data = struct.pack(">cI", kind, len(payload)) + payload
        while data:
            data = data[os.write(self.fd, data):]

    def frames(self):
        """Reads once and gives the frames that are complete."""
        data = os.read(self.fd, CHUNK)
        if not data:
            time.sleep(0.05)
        self.received += data
        while len(self.received) >= 5:
            kind, length = struct.unpack_from(">cI", self.received)
            if len(self.received) < 5 + length:
                break
            payload = bytes(self.received[5:5 + length])
            del self.received[:5 + length]
            yield kind, payload


LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, options):
    """mount(2): in this machine a process of its own for it would cost 50 ms."""
    os.makedirs(target, exist_ok=True)
    if LIBC.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()):
        raise Failure(f"mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


def unmount(path):
    """Unmounts `path` and all that is mounted below it."""
    with open("/proc/self/mounts") as mounts:
        mounted = [line.split()[1].encode().decode("unicode_escape") for line in mounts]
    for point in reversed(mounted):
        if (point + "/").startswith(path + "/") and LIBC.umount2(point.encode(), 0):
            raise Failure(f"unmount {point}: {os.strerror(ctypes.get_errno())}")


class Job:
    """One command: `argv`, `cwd`, `env`, `window` ([rows, columns] for a terminal, or null), what to
    mount (`shares`: [tag, path] pairs), and `time` and `seed` of the host."""

    def __init__(self, channel, order):
        self.channel = channel
        self.order = order
        self.selector = selectors.DefaultSelector()
        self.input = bytearray()
        self.input_ended = False
        self.outputs = {}
        self.status = None

    def prepare(self):
        # A resumed machine wakes with the clock and the random numbers of the day it was saved.
        time.clock_settime(time.CLOCK_REALTIME, self.order["time"])
        with open("/dev/urandom", "wb", buffering=0) as urandom:
            urandom.write(bytes.fromhex(self.order["seed"]))
            fcntl.ioctl(urandom, RNDRESEEDCRNG)
        for tag, path in sorted(self.order["shares"], key=lambda share: len(share[1])):
            mount(tag, path, "9p", "trans=virtio,version=9p2000.L,msize=512000,cache=mmap")
        disk = os.open("/dev/vdb", os.O_RDONLY)
        fcntl.ioctl(disk, BLKFLSBUF)
        os.close(disk)
        mount("/dev/vdb", "/data", "ext4", "")

    def start(self):
        window = self.order["window"]
        if window:
            terminal, inner = pty.openpty()
            self.resize(terminal, *window)
            self.outputs = {terminal: b"O"}
            self.stdin = os.dup(terminal)
            ends = (inner, inner, inner)
        else:
            (in_read, self.stdin), (out, out_write), (err, err_write) = os.pipe(), os.pipe(), os.pipe()
            self.outputs = {out: b"O", err: b"E"}
            ends = (in_read, out_write, err_write)
        os.set_blocking(self.stdin, False)
        self.pid = os.fork()
        if self.pid == 0:
            self.become(ends, bool(window))
        for end in set(ends):
            os.close(end)
        for fd in self.outputs:
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, self.forward)

    def become(self, ends, terminal):
        """In the child: turns into the command. Never returns."""
        try:
            os.setsid()
            for number, end in enumerate(ends):
                os.dup2(end, number)
            if terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            os.chdir(self.order["cwd"])
            argv = self.order["argv"]
            os.environ.clear()
            os.environ.update(self.order["env"])
            os.execvp(argv[0], argv)
        except OSError as error:
            name = error.filename or self.order["argv"][0]
            os.write(2, f"lab: {name}: {error.strerror}\n".encode())
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
        finally:
            os._exit(126)

    def serve(self, wakeup):
        """Carries input, output and signals until the command has ended."""
        self.selector.register(self.channel.fd, selectors.EVENT_READ, self.obey)
        self.selector.register(wakeup, selectors.EVENT_READ, self.reap)
        self.reap(wakeup)
        while self.status is None:
            for key, _ in self.selector.select():
                key.data(key.fileobj)
        for fd in list(self.outputs):
            # What it has written; not what a daemon that it left behind may still write.
            while fd in self.outputs and self.forward(fd):
                pass

    def obey(self, _):
        for kind, payload in self.channel.frames():
            if kind == b"I":
                self.input += payload
                self.input_ended |= not payload
                self.feed()
            elif kind == b"S":
                try:
                    os.killpg(self.pid, int(payload))
                except ProcessLookupError:
                    pass
            elif kind == b"W":
                for fd in self.outputs:
                    self.resize(fd, *map(int, payload.split()))
            elif kind == b"C":
                for fd in [fd for fd, name in self.outputs.items() if name == payload]:
                    self.close_output(fd)

    @staticmethod
    def resize(terminal, rows, columns):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def feed(self, _=None):
        """Gives the command as much input as it takes now, and tells the host how much that was."""
        if self.stdin is None:
            self.input.clear()
            return
        waiting = self.stdin in self.selector.get_map()
        try:
            while self.input:
                taken = os.write(self.stdin, self.input[:CHUNK])
                del self.input[:taken]
                self.channel.send(b"A", str(taken).encode())
        except BlockingIOError:
            if not waiting:
                self.selector.register(self.stdin, selectors.EVENT_WRITE, self.feed)
            return
        except OSError:
            self.input.clear()
            self.input_ended = True
        if waiting:
            self.selector.unregister(self.stdin)
        if self.input_ended and not self.order["window"]:
            os.close(self.stdin)
            self.stdin = None

    def forward(self, fd):
        """Sends what the command has written. False when there is nothing more now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.channel.send(self.outputs[fd], data)
        else:
            self.close_output(fd)
        return bool(data)

    def close_output(self, fd):
        self.selector.unregister(fd)
        del self.outputs[fd]
        os.close(fd)

    def reap(self, wakeup):
        """Collects every process that has ended: process 1 inherits all orphans."""
        try:
            os.read(wakeup, 512)
        except BlockingIOError:
            pass
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    code = os.waitstatus_to_exitcode(status)
                    self.status = code if code >= 0 else 128 - code
        except ChildProcessError:
            pass


def end_processes():
    """Ends what the command left behind: first by request, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            pass
        deadline = time.monotonic() + END_GRACE
        while time.monotonic() < deadline:
            try:
                ended, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not ended:
                time.sleep(0.02)


def main():
    # A wake-up pipe and a handler that does nothing: the selector sees every ended process.
    wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    channel = Channel()
    channel.send(b"H")
    orders = []
    while not orders:
        orders = [payload for kind, payload in channel.frames() if kind == b"R"]
    order = json.loads(orders[0])
    try:
        job = Job(channel, order)
        job.prepare()
        job.start()
        channel.send(b"B")
        job.serve(wakeup)
        end_processes()
        os.chdir("/")
        for path in [path for _, path in order["shares"]] + ["/data"]:
            unmount(path)
        os.sync()
        channel.send(b"X", str(job.status).encode())
    except Failure as failure:
        channel.send(b"F", str(failure).encode())
    except Exception as error:  # whatever it is, the host must hear of it
        channel.send(b"F", f"the agent failed: {error!r}".encode())
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        print(f"lab: {error!r}", file=sys.stderr, flush=True)
        os.sync()
        time.sleep(3600)
