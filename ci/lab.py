#!/usr/bin/python3
"""What `ci/lab` calls once the lab's files exist.

    lab.py save --root FOLDER --boot FOLDER          boots and keeps the booted machine in FOLDER/state
    lab.py run  --root FOLDER --boot FOLDER …        runs a command; see `ci/lab help`
"""

import argparse
import json
import os
import secrets
import signal
import sys
import termios
import time
import tty

from machine import RESUME_SECONDS, kept_disk, save, throwaway_disk, wake
from session import BOOT_SECONDS, LabError, Session, say

FAILED = 125


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
                "shares": shares, "time": time.time(), "seed": secrets.token_hex(64),
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
    for fd in (0, 1, 2):  # one that is closed would be given to the next file opened
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
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
