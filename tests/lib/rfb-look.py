"""Attaches to an RFB server as a viewer that knows only Raw, and prints the picture's size and number of colours."""

import json
import socket
import struct
import sys


def main():
    stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)

    def take(count):
        data = b""
        while len(data) < count:
            piece = stream.recv(count - len(data))
            if not piece:
                sys.exit("the server closed the connection")
            data += piece
        return data

    assert take(12) == b"RFB 003.008\n"
    stream.sendall(b"RFB 003.008\n")
    assert 1 in take(take(1)[0]), "security type None"
    stream.sendall(b"\x01")
    assert take(4) == bytes(4)
    stream.sendall(b"\x01")
    width, height = struct.unpack(">HH", take(4))
    take(16)
    take(struct.unpack(">I", take(4))[0])
    stream.sendall(struct.pack(">BxHi", 2, 1, 0))
    stream.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    pixels, missing = set(), width * height
    while missing > 0:
        assert take(1) == b"\x00", "a framebuffer update"
        _, count = struct.unpack(">BH", take(3))
        for _ in range(count):
            _, _, columns, rows, encoding = struct.unpack(">HHHHi", take(12))
            assert encoding == 0, encoding
            data = take(columns * rows * 4)
            pixels.update(struct.unpack(f"<{columns * rows}I", data))
            missing -= columns * rows
    print(json.dumps({"width": width, "height": height, "colours": len(pixels)}))


main()
