"""boot: from a monitor's start to userspace and to the first frame, beside QEMU's microvm, in the nested lab."""

import os
import select
import socket
import subprocess
import tempfile
import threading
import time

from figures import OUTPUT, Figure, Missing, image, in_lab, median, program
from lab.processes import private_mib

RUNS = 3
DESKTOP_RUNS = 5
# The command line of the boot measurements of Firecracker, Cloud Hypervisor and QEMU that the goals come from, and that
# neither machine has PCI or more than one serial port.
CMDLINE = "console=ttyS0 reboot=k panic=-1 quiet pci=off 8250.nr_uarts=1"


def path():
    """path to userspace, exits, memory: the minimal image, instructions counted"""
    folder, _ = image("minimal")
    options = ["--image", folder, "--cmdline", CMDLINE, "--yunju-vmm", program("yunju-vmm"), "--runs", str(RUNS)]
    found = in_lab(["--icount"], "boot_path.py", [*options, "yunju", "qemu", "qemu-rtc"], 1800)
    ours, peer, tuned = found["yunju"], found["qemu"], found["qemu-rtc"]
    called = peer[0]["peer"]
    where = "nested lab, icount"
    for name, key, unit in [("boot.path_length", "path_length", "10⁶ instructions"), ("boot.exits", "exits", "exits"),
                            ("boot.memory_faults", "memory_faults", "faults"),
                            ("boot.vmm_private_mib", "private_mib", "MiB")]:
        yield Figure(name, median(ours, key), unit, len(ours), called, median(peer, key), where)
    # Most of that peer's path is a guest that waits for a clock that is not there: the same with a clock.
    yield Figure("boot.path_length.rtc", median(ours, "path_length"), "10⁶ instructions", len(ours), f"{called},rtc=on",
                 median(tuned, "path_length"), where)


def first_frame():
    """first frame at a viewer: the desktop image"""
    folder, _ = image("desktop")
    for name in ("yunju-vmm", "yunju-vnc-proxy"):
        program(name)
    binaries = program("yunju").rpartition("/")[0]
    options = ["--image", folder, "--binaries", binaries, "--runs", str(DESKTOP_RUNS), "--pictures", OUTPUT]
    found = in_lab([], "first_frame.py", options, 2400)
    if set(found) != {"yunju", "qemu"}:
        raise Missing(f"first frames of {sorted(found)} only")
    yield Figure("boot.first_frame", median(found["yunju"], "seconds"), "s", len(found["yunju"]),
                 found["qemu"][0]["peer"], median(found["qemu"], "seconds"), "nested lab")


def display_memory():
    """private memory with a screen that is watched: the card guest, native"""
    folder, described = image("card")
    memory, said = 128 << 20, b""
    with tempfile.TemporaryDirectory() as scratch:
        display = f"{scratch}/display.sock"
        command = [program("yunju-vmm"), "run", "--kernel", f"{folder}/{described['kernel']}", "--memory", str(memory),
                   "--display", f"unix:{display},1280x800", "--serial", "stdio"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            while not os.path.exists(display) and process.poll() is None:
                time.sleep(0.01)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as viewer:
                viewer.connect(display)
                # Like a client that keeps up: the machine holds nothing back for it.
                threading.Thread(target=lambda: all(iter(lambda: viewer.recv(1 << 17), b"")), daemon=True).start()
                while b"CARD READY" not in said:
                    readable, _, _ = select.select([process.stdout], [], [], 60)
                    chunk = os.read(process.stdout.fileno(), 65536) if readable else b""
                    if not chunk:
                        raise Missing(f"the card guest shows nothing; it said {said[-200:]!r}")
                    said += chunk
                time.sleep(1)  # what is done once after the first picture
                value = private_mib(process.pid, memory, apart=["memfd:yunju-pixels"])
                viewer.shutdown(socket.SHUT_RDWR)
        finally:
            process.kill()
            process.wait()
    yield Figure("boot.vmm_private_mib.display", value, "MiB", 1)


parts = [path, display_memory, first_frame]
