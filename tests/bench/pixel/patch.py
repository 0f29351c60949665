"""An X client that does what the card guest does: a patch of 200x200 pixels takes its next colour at each key press."""

import os
import socket
import struct
import sys

COLOURS = [0x404040, 0xff0000, 0x00ff00, 0x0000ff, 0xffff00, 0x00ffff, 0xff00ff, 0xffffff]
PLACE = (40, 160, 200, 200)


class X:
    """As much of the X protocol as one window needs."""

    def __init__(self, display):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f"/tmp/.X11-unix/X{display}")
        self.socket.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        status, length = struct.unpack("<B5xH", self.read(8))
        setup = self.read(4 * length)
        if status != 1:
            sys.exit(f"the X server refuses: {setup[:80]!r}")
        self.ids, vendor = struct.unpack("<4xI8xH", setup[:18])
        formats = setup[21]
        screen = 32 + (vendor + 3) // 4 * 4 + 8 * formats
        self.root = struct.unpack("<I", setup[screen:screen + 4])[0]

    def read(self, count):
        data = b""
        while len(data) < count:
            got = self.socket.recv(count - len(data))
            if not got:
                sys.exit(0)  # the server has ended, and so does its client
            data += got
        return data

    def request(self, opcode, byte, body):
        self.socket.sendall(struct.pack("<BBH", opcode, byte, 1 + len(body) // 4) + body)


def main(display):
    x = X(display)
    window, context = x.ids, x.ids + 1
    override_redirect, background, key_press = 0x200, 0x2, 1
    x.request(1, 0, struct.pack("<IIhhHHHHIIIII", window, x.root, *PLACE, 0, 1, 0, background | override_redirect | 0x800,
                                COLOURS[0], 1, key_press))
    x.request(8, 0, struct.pack("<I", window))
    x.request(42, 0, struct.pack("<III", window, 0, 0)[:8])
    x.request(55, 0, struct.pack("<III", context, window, 0))
    print("ready", flush=True)
    presses = 0
    while True:
        event = x.read(32)
        if event[0] == 0:
            sys.exit(f"the X server reports error {event[1]} of request {event[10]}")
        if event[0] & 0x7f == 2:
            presses += 1
            x.request(56, 0, struct.pack("<III", context, 4, COLOURS[presses % len(COLOURS)]))
            x.request(70, 0, struct.pack("<IIhhHH", window, context, 0, 0, PLACE[2], PLACE[3]))


main(os.environ["DISPLAY"].lstrip(":"))
