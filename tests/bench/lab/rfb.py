"""A viewer that looks for the first picture: RFB 3.8 with raw pixels, which every server sends alike."""

import socket
import struct
import time

ENCODINGS = [0, -223]  # raw; the desktop may change its size
PIXEL_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
# A boot's text or a server's "no picture yet" has two or three colours, a wallpaper hundreds.
COLOURS = 32


class Viewer:
    """One connection. Raises OSError when it ends."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read(12)
        self.socket.sendall(b"RFB 003.008\n")
        self.read(self.read(1)[0])
        self.socket.sendall(b"\1")
        if self.number(">I"):
            raise OSError("the server does not let us in")
        self.socket.sendall(b"\1")
        width, height, name = struct.unpack(">HH16xI", self.read(24))
        self.resize(width, height)
        self.read(name)
        self.socket.sendall(b"\0\0\0\0" + PIXEL_FORMAT)
        self.socket.sendall(struct.pack(f">BxH{len(ENCODINGS)}i", 2, len(ENCODINGS), *ENCODINGS))

    def read(self, count):
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self.socket.recv_into(view)
            if not got:
                raise OSError("the server closed the connection")
            view = view[got:]
        return data

    def number(self, form):
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def resize(self, width, height):
        self.width, self.height = width, height
        self.pixels = bytearray(4 * width * height)

    def request(self, incremental):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def next_update(self):
        """Waits for one update and puts it into the picture."""
        while (kind := self.read(1)[0]) != 0:
            if kind == 2:  # bell
                continue
            if kind == 3:  # text cut
                self.read(struct.unpack(">3xI", self.read(7))[0])
                continue
            raise OSError(f"message {kind} was not asked for")
        resized = False
        for _ in range(self.number(">xH")):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            if encoding == -223:
                self.resize(width, height)
                resized = True
            elif encoding == 0:
                self.put(x, y, width, height)
            else:
                raise OSError(f"encoding {encoding} was not asked for")
        return resized

    def put(self, x, y, width, height):
        data = self.read(4 * width * height)
        if width == self.width:
            self.pixels[4 * width * y:4 * width * (y + height)] = data
            return
        for row in range(height):
            at = 4 * (self.width * (y + row) + x)
            self.pixels[at:at + 4 * width] = data[4 * width * row:4 * width * (row + 1)]

    def colours(self):
        """How many colours a grid of sample points has."""
        points = (4 * (self.width * y + x) for y in range(4, self.height, 16) for x in range(4, self.width, 16))
        return len({bytes(self.pixels[at:at + 3]) for at in points})


def first_frame(port, size, alive, patience):
    """Waits until a viewer sees a picture of that size with content; returns the viewer. `alive` raises to give up."""
    end = time.monotonic() + patience
    last = "nobody listened"
    while time.monotonic() < end:
        alive()
        try:
            viewer = Viewer(port)
            viewer.request(incremental=False)
            while time.monotonic() < end:
                resized = viewer.next_update()
                count = viewer.colours()
                last = f"the picture had {viewer.width}x{viewer.height} pixels and {count} colours"
                if (viewer.width, viewer.height) == size and count >= COLOURS:
                    return viewer
                viewer.request(incremental=not resized)
        except OSError as error:
            last = f"the last viewer: {error}; {last}"[:300]
            time.sleep(0.1)
    raise SystemExit(f"no first frame at port {port} within {patience} s: {last}")
