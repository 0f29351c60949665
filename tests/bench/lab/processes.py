"""A monitor's processes and their memory: one, or with a jail the warden, which was started, and its prisoner, the machine."""

import re


def of(pid):
    """The process that was started and its children."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [pid, *map(int, file.read().split())]


def private_mib(pid, memory, apart=()):
    """What a monitor has written, in all of its processes together, in all mappings but the guest's memory, of that many bytes, and
    such as have one of the texts `apart` in their line.

    A page that warden and prisoner share is counted once (`Pss_Dirty`). Were the heap merged into the guest's memory there would be
    no mapping of that size, which is an error rather than a figure.
    """
    kib, guests = 0, []
    for process in of(pid):
        own = 0
        with open(f"/proc/{process}/smaps") as file:
            for line in file:
                if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                    guest = int(head[2], 16) - int(head[1], 16) == memory
                    own += guest
                    counted = not guest and not any(text in line for text in apart)
                elif line.startswith("Pss_Dirty:") and counted:
                    kib += int(line.split()[1])
        guests.append(own)
    if max(guests) != 1:
        raise ValueError(f"the guest's memory cannot be told apart: {guests} mappings have its size")
    return kib / 1024
