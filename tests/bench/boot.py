"""Boots the minimal image in our monitor and in QEMU's microvm, and measures the way to userspace.

Runs in the lab started with --icount, where one executed instruction is one nanosecond: the clock then tells the
length of the path, the same within 1 % whatever else the machine does. Prints one JSON object for each boot.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

DEBUG = "/sys/kernel/debug/kvm"
FIRST_LINE = b"HELLO-FROM-GUEST"
MEMORY_MIB = 256


def command(name, image, kernel, yunju_vmm):
    cmdline = "console=ttyS0 reboot=k panic=-1 quiet"
    initrd = f"{image}/initrd"
    if name == "yunju":
        return [yunju_vmm, "run", "--no-reboot", "--kernel", kernel, "--initrd", initrd, "--cmdline", cmdline,
                "--memory", f"{MEMORY_MIB}M", "--serial", "stdio"]
    return ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-M", "microvm", "-m", str(MEMORY_MIB), "-smp", "1",
            "-kernel", kernel, "-initrd", initrd, "-append", cmdline]


def counter(name):
    with open(f"{DEBUG}/{name}") as file:
        return int(file.read())


def private_kib(pid):
    """Private memory of a process without the guest's: of all mappings shorter than the guest's memory."""
    total, guest = 0, False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if head:
                length = int(head[2], 16) - int(head[1], 16)
                guest = length >= MEMORY_MIB << 20
            elif not guest and line.startswith(("Private_Dirty:", "Private_Clean:")):
                dirty = line.startswith("Private_Dirty:")
                total += int(line.split()[1]) if dirty else 0
    return total


def boot(name, image, kernel, yunju_vmm, patience):
    start = time.monotonic()
    process = subprocess.Popen(command(name, image, kernel, yunju_vmm), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.alarm(patience)
    try:
        for line in process.stdout:
            if FIRST_LINE in line:
                break
        else:
            sys.exit(f"{name} ended before userspace: {command(name, image, kernel, yunju_vmm)}")
        elapsed = time.monotonic() - start
        os.kill(process.pid, signal.SIGSTOP)
        return {
            "monitor": name,
            "kernel": os.path.basename(kernel),
            "path_length": round(elapsed * 1000, 1),
            "exits": counter("exits"),
            "memory_faults": counter("pf_taken"),
            "private_mib": round(private_kib(process.pid) / 1024, 2),
        }
    finally:
        signal.alarm(0)
        process.kill()
        process.wait()


def main():
    image, yunju_vmm, runs, kernel = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    for _ in range(runs):
        for name in ("yunju", "qemu"):
            print(json.dumps(boot(name, image, f"{image}/{kernel}", yunju_vmm, 300)), flush=True)


main()
