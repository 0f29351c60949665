"""boot: from a monitor's start to userspace and to the first frame, beside QEMU's microvm, in the nested lab."""

from figures import OUTPUT, Figure, Missing, image, in_lab, median, program

RUNS = 3
DESKTOP_RUNS = 5
# The command line of the boot measurements of Firecracker, Cloud Hypervisor and QEMU that the goals come from.
CMDLINE = "console=ttyS0 reboot=k panic=-1 quiet"


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


parts = [path, first_frame]
