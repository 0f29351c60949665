"""A viewer that looks for the first picture: RFB 3.8 with raw pixels, which every server sends alike."""

import os
import socket
import struct
import time

ENCODINGS = [0, -223]  # raw; the desktop may change its size
PIXEL_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
# A boot's text or a server's "no picture yet" has two or three colours, a wallpaper hundreds.
COLOURS = 32


class Plain:
    """Bytes over TCP."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_into(self, view):
        got = self.socket.recv_into(view)
        if not got:
            raise OSError("the server closed the connection")
        return got

    def send(self, data):
        self.socket.sendall(data)


class Websocket(Plain):
    """Bytes in binary messages (RFC 6455) over a socket file, the way that a browser's take."""

    def __init__(self, path, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(300)
        self.socket.connect(path)
        self.socket.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.exactly(1)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            raise OSError(f"no websocket: {answer.splitlines()[0].decode()}")
        self.left = 0

    def exactly(self, count):
        data = bytearray(count)
        view = memoryview(data)
        while view:
            view = view[super().read_into(view):]
        return data

    def read_into(self, view):
        while not self.left:
            kind, short = self.exactly(2)
            longer = {126: ">H", 127: ">Q"}.get(short)
            length = struct.unpack(longer, self.exactly(struct.calcsize(longer)))[0] if longer else short
            if kind & 0x0f <= 2:
                self.left = length
            elif kind & 0x0f == 8:
                raise OSError("the server closed the websocket")
            else:
                self.exactly(length)
        got = super().read_into(view[:self.left])
        self.left -= got
        return got

    def send(self, data):
        length = struct.pack(">B", 0x80 | len(data)) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data))
        mask = os.urandom(4)
        self.socket.sendall(b"\x82" + length + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(data)))


class Viewer:
    """One connection over `stream`. Raises OSError when it ends."""

    def __init__(self, stream):
        self.stream = stream
        self.read(12)
        stream.send(b"RFB 003.008\n")
        self.read(self.read(1)[0])
        stream.send(b"\1")
        if self.number(">I"):
            raise OSError("the server does not let us in")
        stream.send(b"\1")
        width, height, name = struct.unpack(">HH16xI", self.read(24))
        self.resize(width, height)
        self.read(name)
        stream.send(b"\0\0\0\0" + PIXEL_FORMAT)
        stream.send(struct.pack(f">BxH{len(ENCODINGS)}i", 2, len(ENCODINGS), *ENCODINGS))

    def read(self, count):
        data = bytearray(count)
        view = memoryview(data)
        while view:
            view = view[self.stream.read_into(view):]
        return data

    def number(self, form):
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def resize(self, width, height):
        self.width, self.height = width, height
        self.pixels = bytearray(4 * width * height)

    def request(self, incremental):
        self.stream.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

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


def first_frame(connect, size, alive, patience):
    """Waits until a viewer sees a picture of that size with content; returns the viewer.

    `connect` makes a stream or raises OSError; `alive` raises to give up.
    """
    end = time.monotonic() + patience
    last = "nobody listens"
    while time.monotonic() < end:
        alive()
        try:
            viewer = Viewer(connect())
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
    raise SystemExit(f"no first frame within {patience} s: {last}")
