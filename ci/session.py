"""The host's end of one command in the lab: carries its input, output and signals.

guest/agent.py is the other end and describes the frames that the two exchange.
"""

import os
import selectors
import signal
import struct
import sys
import time

BOOT_SECONDS = 300
END_SECONDS = 30
INPUT_WINDOW = 64 * 1024
CHUNK = 64 * 1024
PIPE_ATOMIC = 4096  # what a pipe that polls writable takes without blocking (PIPE_BUF)
TIMED_OUT = 124


class LabError(Exception):
    """The lab cannot run the command; the text says why."""


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


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
                    selector.register(0, selectors.EVENT_READ)
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


