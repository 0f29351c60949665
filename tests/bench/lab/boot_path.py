"""Boots one kernel in our monitor and in QEMU's microvm and measures the way to userspace.

Runs in the lab that counts instructions (`ci/lab run --icount`): one executed instruction is one nanosecond of its
clock, so that a duration is the length of a path, the same within 1 % whatever else the host does.
Prints one JSON object for each measured boot, `exits_by_reason` among it in a boot that is only for looking.
"""

import argparse
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import processes
import qemu as peer

FIRST_LINE = b"HELLO-FROM-GUEST"
MEMORY = 256 << 20
COUNTERS = "/sys/kernel/debug/kvm"
TRACING = "/sys/kernel/tracing"
PATIENCE = 400  # seconds of the lab's clock


def warm_up(image, yunju_vmm):
    """Waiting for a file counts as path, so all that a boot reads is in memory before; returns image and monitor there.

    They are on a disk, because mapped pages of a file system in memory would count as private and written, and are
    written to it, because those of a new file would.
    """
    copy = shutil.copytree(image, "/data/boot", ignore=lambda _, names: set(names) - {"vmlinux", "bzImage", "initrd"})
    yunju_vmm = shutil.copy(yunju_vmm, "/data/boot")
    os.sync()
    qemu = shutil.which("qemu-system-x86_64")
    libraries = re.findall(r"=> (/\S+)", subprocess.check_output(["ldd", qemu], text=True))
    for file in [qemu, *libraries, *glob.glob("/usr/share/qemu/*.bin"), *glob.glob("/usr/share/seabios/*.bin")]:
        with open(file, "rb") as opened:
            while opened.read(1 << 20):
                pass
    return copy, yunju_vmm


def commands(image, cmdline, yunju_vmm):
    """Command lines by name: a monitor and the kernel's form."""
    def ours(kernel):
        return [yunju_vmm, "run", "--no-reboot", "--kernel", f"{image}/{kernel}", "--initrd", f"{image}/initrd",
                "--cmdline", cmdline, "--memory", f"{MEMORY >> 20}M", "--serial", "stdio"]

    def qemu(kernel, machine):
        return ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-user-config", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-M", machine, "-m", str(MEMORY >> 20), "-smp", "1",
                "-kernel", f"{image}/{kernel}", "-initrd", f"{image}/initrd", "-append", cmdline]

    return {
        "yunju": ours("vmlinux"),
        # With its default PIT and PIC an interrupt can come before the kernel has told the PIC which, and while
        # instructions are counted it always does: "divide error" at interrupt 0.
        "qemu": qemu("vmlinux", "microvm,pit=off,pic=off"),
        "qemu-rtc": qemu("vmlinux", "microvm,pit=off,pic=off,rtc=on"),
        "yunju-bzimage": ours("bzImage"),
        "qemu-bzimage": qemu("bzImage", "microvm,pit=off,pic=off"),
    }


def wait_for_first_line(process, name):
    """Reads the serial port until userspace speaks."""
    said, end = b"", time.monotonic() + PATIENCE
    while FIRST_LINE not in said:
        readable, _, _ = select.select([process.stdout], [], [], max(0, end - time.monotonic()))
        chunk = os.read(process.stdout.fileno(), 65536) if readable else b""
        if not chunk:
            sys.exit(f"{name}: no userspace {'after' if not readable else 'before its end, within'} {PATIENCE} s; "
                     f"the serial port said: {said[-500:].decode(errors='replace')!r}")
        said += chunk


def counters(pid):
    """KVM's counters of the one machine of a process and its children."""
    owners = processes.of(pid)
    folders = [name for name in os.listdir(COUNTERS) if any(name.startswith(f"{owner}-") for owner in owners)]
    if len(folders) != 1:
        sys.exit(f"processes {owners} have {len(folders)} machines in {COUNTERS}, not one")
    def read(name):
        with open(f"{COUNTERS}/{folders[0]}/{name}") as file:
            return int(file.read())
    return {"exits": read("exits"), "memory_faults": read("pf_taken")}


def boot(name, command):
    """One boot, stopped and looked at when userspace speaks."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        wait_for_first_line(process, name)
        elapsed = time.monotonic() - start
        for each in processes.of(process.pid):
            os.kill(each, signal.SIGSTOP)
        return {"monitor": name, "path_length": elapsed * 1000, **counters(process.pid),
                "private_mib": processes.private_mib(process.pid, MEMORY)}
    finally:
        process.kill()
        process.wait()


def why(name, command):
    """One boot whose exits are counted by reason and by port. It is slower, so it is no measurement."""
    wanted = {"reasons": "kvm/kvm_exit:exit_reason", "ports": "kvm/kvm_pio:port", "msrs": "kvm/kvm_msr:ecx",
              "cpuid": "kvm/kvm_cpuid:function", "registers": "kvm/kvm_mmio:gpa", "apic": "kvm/kvm_apic:reg"}
    def trigger(where, text):
        with open(f"{TRACING}/events/{where.split(':')[0]}/trigger", "w") as file:
            file.write(text)
    for where in wanted.values():
        trigger(where, f"hist:keys={where.split(':')[1]}")
    try:
        boot(name, command)
        result = {}
        for what, where in wanted.items():
            with open(f"{TRACING}/events/{where.split(':')[0]}/hist") as file:
                found = re.findall(r"{[^:]+: +(\S+).* } hitcount: +(\d+)", file.read())
            result[what] = sorted(((key, int(count)) for key, count in found), key=lambda item: -item[1])
        return {"monitor": name, "why": result}
    finally:
        for where in wanted.values():
            trigger(where, f"!hist:keys={where.split(':')[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, help="folder with vmlinux, bzImage and initrd")
    parser.add_argument("--cmdline", required=True)
    parser.add_argument("--yunju-vmm", required=True)
    parser.add_argument("--runs", type=int, default=3, help="boots measured after one that warms up")
    parser.add_argument("--why", action="store_true", help="one more boot each, to count exits by reason")
    parser.add_argument("monitor", nargs="+")
    options = parser.parse_args()
    image, yunju_vmm = warm_up(options.image, options.yunju_vmm)
    known = commands(image, options.cmdline, yunju_vmm)
    for run in range(options.runs + 1):
        for name in options.monitor:
            result = boot(name, known[name])
            print(f"bench: {name} {'warm-up' if run == 0 else f'{run} of {options.runs}'}: "
                  f"{result['path_length']:.0f} million instructions, {result['exits']} exits", file=sys.stderr)
            if run > 0:
                print(json.dumps({**result, "peer": peer.name()}), flush=True)
    for name in options.monitor if options.why else ():
        print(json.dumps(why(name, known[name])), flush=True)


main()
