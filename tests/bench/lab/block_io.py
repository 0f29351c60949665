"""Lets one guest read, write and flush a disk under our monitor and under QEMU's microvm, in turns.

Runs in the lab that counts instructions (`ci/lab run --icount`), so that a duration is the length of a path: of guest, monitor
and kernel together, since one processor does everything; only flushes also wait. Both get the same
kernel, initrd and file, and the same caching: the host's page cache, a flush of the guest being one of the file (QEMU:
`cache=writeback`). All of the file is in that cache. Prints one JSON object for each piece of work.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import qemu as peer

DISK = "/data/disk.img"
SIZE = 128 << 20
MEMORY = "256M"
ROUNDS = 4
PATIENCE = 600  # seconds of the lab's clock
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
modprobe virtio_mmio
modprobe virtio_blk
while [ ! -b /dev/vda ]; do sleep 0.01; done
/block_work /dev/vda %d
sleep 1000
""" % ROUNDS


def initrd(image, work):
    """The image's with our first program behind it."""
    tree = "/data/tree"
    os.makedirs(tree)
    shutil.copy(work, f"{tree}/block_work")
    with open(f"{tree}/block_init", "w") as file:
        file.write(INIT)
    for name in os.listdir(tree):
        os.chmod(f"{tree}/{name}", 0o755)
    more = newc(tree)
    path = "/data/initrd"
    shutil.copy(f"{image}/initrd", path)
    with open(path, "ab") as file:
        file.write(b"\0" * (-os.path.getsize(path) % 512) + more)
    return path


def newc(tree):
    """A cpio archive of the files of a folder (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = b""
    def entry(number, name, mode, data):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        return pad(head) + pad(data)
    def pad(data):
        return data + b"\0" * (-len(data) % 4)
    for number, name in enumerate(sorted(os.listdir(tree)), 1):
        with open(f"{tree}/{name}", "rb") as file:
            archive += entry(number, name, 0o100755, file.read())
    return archive + entry(0, "TRAILER!!!", 0, b"")


def commands(image, initrd_path, yunju_vmm):
    cmdline = "console=ttyS0 reboot=k panic=-1 quiet rdinit=/block_init"

    def ours(disk):
        return [yunju_vmm, "run", "--no-reboot", "--kernel", f"{image}/vmlinux", "--initrd", initrd_path,
                "--cmdline", cmdline, "--memory", MEMORY, "--serial", "stdio", "--disk", disk]

    def qemu(aio, *more):
        return ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-user-config", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-M", "microvm,pit=off,pic=off,rtc=on", "-m", MEMORY, "-smp", "1",
                "-kernel", f"{image}/vmlinux", "-initrd", initrd_path, "-append", cmdline,
                "-object", "iothread,id=io", "-drive", f"file={DISK},format=raw,if=none,id=disk,cache=writeback,aio={aio},discard=unmap",
                "-device", "virtio-blk-device,drive=disk,iothread=io"]

    return {"yunju": ours(DISK), "yunju-layer": ours(f"/data/top,below={DISK}"), "qemu": qemu("threads"),
            "qemu-uring": qemu("io_uring")}


def measure(name, command):
    """One boot; what each round but the first took."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    end, rounds = time.monotonic() + PATIENCE, {}
    try:
        for line in process.stdout:
            words = line.decode(errors="replace").split()
            if words[:1] == ["END"]:
                work, operations, nanoseconds = words[1], int(words[2]), int(words[3])
                rounds[work] = rounds.get(work, 0) + 1
                if rounds[work] > 1:
                    yield {"monitor": name, "work": work, "per_second": operations * 1e9 / nanoseconds,
                           "peer": peer.name()}
            elif words == ["DONE"]:
                return
            if time.monotonic() > end:
                break
        sys.exit(f"{name}: the guest did not finish its work")
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, help="folder with vmlinux and initrd")
    parser.add_argument("--work", required=True, help="the program that the guest runs")
    parser.add_argument("--yunju-vmm", required=True)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("monitor", nargs="+")
    options = parser.parse_args()
    image = shutil.copytree(options.image, "/data/boot", ignore=lambda _, names: set(names) - {"vmlinux"})
    yunju_vmm = shutil.copy(options.yunju_vmm, "/data/boot")
    known = commands(image, initrd(options.image, options.work), yunju_vmm)
    with open(DISK, "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(b"\x5a" * (1 << 20))
    os.sync()
    for run in range(options.runs):
        for name in options.monitor:
            if name == "yunju-layer":
                if os.path.exists("/data/top"):
                    os.remove("/data/top")
                subprocess.run([yunju_vmm, "disk", "create", "/data/top", "--on", DISK], check=True)
            for result in measure(name, known[name]):
                print(json.dumps(result), flush=True)
            print(f"bench: {name}: {run + 1} of {options.runs}", file=sys.stderr)


main()
