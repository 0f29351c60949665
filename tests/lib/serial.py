"""Runs a command in the root shell of a machine's serial port: serial.py SOCKET COMMAND. Prints what it prints.

With --times before them, a first line says when the command was sent and when its end was seen."""

import socket
import sys
import time

*options, port, command = sys.argv[1:]
# In two parts, since the port echoes what is typed.
mark = f"m{time.monotonic_ns()}"
end = time.monotonic() + 60
with socket.socket(socket.AF_UNIX) as serial:
    serial.connect(port)
    serial.settimeout(1)
    # As the echo of a long line is broken by the width of a terminal, only what follows the first mark counts.
    sent = time.time()
    serial.sendall(f" echo; echo {mark}''a; {command}; echo {mark}''b\n".encode())
    heard = b""
    while f"{mark}b".encode() not in heard:
        if time.monotonic() > end:
            sys.exit(f"no answer; heard: {heard[-2000:]!r}")
        try:
            piece = serial.recv(65536)
        except TimeoutError:
            continue
        if not piece:
            sys.exit(f"the port was closed; heard: {heard[-2000:]!r}")
        heard += piece
if "--times" in options:
    print(sent, time.time())
text = heard.decode(errors="replace").replace("\r", "")
print(text.split(f"{mark}a\n", 1)[1].split(f"{mark}b", 1)[0], end="")
