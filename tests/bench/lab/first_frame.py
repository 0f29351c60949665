"""Starts one desktop image by our service and in QEMU's microvm, in turns, and waits for the first frame at a viewer.

Runs in the lab. Both get the same kernel, initrd, command line and memory, the same shared disk, a fresh copy of the
same writable disk, a user-mode network by passt, and the same viewer. Prints one JSON object for each start.
"""

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import zlib
from functools import partial

import qemu as peer
from rfb import Plain, Websocket, first_frame

HERE = "/data"
DESKTOP = "bench"
QEMU_DISPLAY = 1
PATIENCE = 300


def say(text):
    print(f"bench: first frame: {text}", file=sys.stderr)


def alive(*processes):
    def check():
        for process in processes:
            if process.poll() is not None:
                sys.exit(f"{process.args[0]} ended with {process.returncode} before the first frame")
    return check


def prepare(source):
    """Puts the image on the lab's own disk and what is read of it into memory."""
    folder = f"{HERE}/images/desktop"
    os.makedirs(folder)
    with open(f"{source}/image.json") as file:
        image = json.load(file)
    for name in ["image.json", image["kernel"], image["initrd"], *(disk["path"] for disk in image["disks"])]:
        # Copies holes as holes, but has to read them from the share: say what takes so long.
        say(f"copying {name}")
        subprocess.run(["cp", "--sparse=always", f"{source}/{name}", f"{folder}/{name}"], check=True)
    return folder, image


def warm_up(folder, image):
    for disk in image["disks"]:
        if disk.get("readonly"):
            subprocess.run(["cp", f"{folder}/{disk['path']}", "/dev/null"], check=True)


class Ours:
    """`yunju serve` with one desktop, made anew for each start."""

    def __init__(self, binaries, size):
        self.size = size
        self.yunju = f"{binaries}/yunju"
        self.data = f"{HERE}/yunju"
        os.makedirs(self.data)
        self.service = subprocess.Popen([self.yunju, "serve", "--data", self.data, "--images", f"{HERE}/images",
                                         "--listen", "127.0.0.1:8080", "--stop-machines", "--no-warm"])
        end = time.monotonic() + 60
        while subprocess.run([self.yunju, "--data", self.data, "ls"], capture_output=True).returncode != 0:
            alive(self.service)()
            if time.monotonic() > end:
                sys.exit("the service does not answer")
            time.sleep(0.2)
        self.run("user", "add", DESKTOP)

    def run(self, *words):
        return subprocess.check_output([self.yunju, "--data", self.data, *words], text=True)

    def start(self):
        self.run("create", DESKTOP, "--image", "desktop")
        begin = time.monotonic()
        self.run("start", DESKTOP, "--no-wait")
        connect = partial(Websocket, f"{self.data}/yunju.sock", f"/desktops/{DESKTOP}/ws")
        viewer = first_frame(connect, self.size, alive(self.service), PATIENCE)
        took = time.monotonic() - begin
        self.run("stop", "--force", DESKTOP)
        self.run("rm", "--yes", DESKTOP)
        return took, viewer

    def end(self):
        self.service.terminate()
        self.service.wait()


class Qemu:
    """QEMU's microvm with the devices that our monitor has."""

    def __init__(self, folder, image, size):
        self.folder, self.image, self.size = folder, image, size

    def start(self):
        copies, drives = [], []
        for number, disk in enumerate(self.image["disks"]):
            path = f"{self.folder}/{disk['path']}"
            if not disk.get("readonly"):
                copies.append(f"{HERE}/qemu-{number}.img")
                subprocess.run(["cp", "--sparse=always", path, copies[-1]], check=True)
                path = copies[-1]
            readonly = "on" if disk.get("readonly") else "off"
            drives += ["-drive", f"if=none,id=d{number},file={path},format=raw,readonly={readonly}",
                       "-device", f"virtio-blk-device,drive=d{number}"]
        begin = time.monotonic()
        ours, theirs = socket.socketpair()
        passt = subprocess.Popen(["passt", "--foreground", "--quiet", "--no-map-gw", "--fd", str(theirs.fileno())],
                                 pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)
        qemu = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-user-config", "-display", "none",
             "-M", "microvm,acpi=on,rtc=on,pit=off,pic=off", "-global", "virtio-mmio.force-legacy=false",
             "-m", self.image["memory"], "-smp", str(self.image["cpus"]), "-serial", f"file:{HERE}/qemu-serial.log",
             "-kernel", f"{self.folder}/{self.image['kernel']}", "-initrd", f"{self.folder}/{self.image['initrd']}",
             "-append", self.image["cmdline"], *drives,
             "-device", f"virtio-gpu-device,xres={self.size[0]},yres={self.size[1]}", "-device", "virtio-keyboard-device",
             "-device", "virtio-tablet-device", "-netdev", f"stream,id=n,server=off,addr.type=fd,addr.str={ours.fileno()}",
             "-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device",
             "-vnc", f"127.0.0.1:{QEMU_DISPLAY}"],
            pass_fds=[ours.fileno()])
        ours.close()
        theirs.close()
        viewer = first_frame(partial(Plain, 5900 + QEMU_DISPLAY), self.size, alive(qemu, passt), PATIENCE)
        took = time.monotonic() - begin
        qemu.kill()
        qemu.wait()
        passt.terminate()
        passt.wait()
        for copy in copies:
            os.remove(copy)
        return took, viewer

    def end(self):
        pass


def keep_picture(viewer, path):
    """The frame that was counted, for a person to judge."""
    rows = bytearray()
    for start in range(0, len(viewer.pixels), 4 * viewer.width):
        row = viewer.pixels[start:start + 4 * viewer.width]
        rgb = bytearray(3 * viewer.width)
        rgb[0::3], rgb[1::3], rgb[2::3] = row[2::4], row[1::4], row[0::4]
        rows += b"\0" + rgb

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", viewer.width, viewer.height, 8, 2, 0, 0, 0))
                   + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, help="folder of the desktop image")
    parser.add_argument("--binaries", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pictures", required=True, help="folder where the counted frames are kept")
    options = parser.parse_args()
    folder, image = prepare(options.image)
    size = (image["display"]["width"], image["display"]["height"])
    warm_up(folder, image)
    monitors = {"yunju": Ours(options.binaries, size), "qemu": Qemu(folder, image, size)}
    try:
        for run in range(options.runs):
            for name, monitor in monitors.items():
                took, viewer = monitor.start()
                say(f"{name} {run + 1} of {options.runs}: {took:.1f} s")
                keep_picture(viewer, f"{options.pictures}/first-frame-{name}.png")
                print(json.dumps({"monitor": name, "seconds": took, "peer": peer.name()}), flush=True)
    finally:
        for monitor in monitors.values():
            monitor.end()


main()
