"""block: a guest's reads, writes and flushes, beside QEMU's microvm on the same file, in the nested lab."""

import os
import shutil
import subprocess

from figures import OUTPUT, ROOT, Figure, Missing, image, in_lab, median, program

RUNS = 2
WORK = ["rand4k_read", "rand4k_write", "seq1m_read", "seq1m_write", "flush"]
WHERE = "nested lab, icount"


def work_program():
    """What the guest runs, a program that needs no libraries."""
    path = os.path.join(OUTPUT, "block_work")
    rustc = shutil.which("rustc") or os.path.expanduser("~/.cargo/bin/rustc")
    source = os.path.join(ROOT, "tests/bench/lab/block_work.rs")
    try:
        subprocess.run([rustc, "--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o", path, source], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"building {source}: {error}") from None
    return path


def disk():
    """operations per second: the minimal image, instructions counted"""
    folder, _ = image("minimal")
    options = ["--image", folder, "--work", work_program(), "--yunju-vmm", program("yunju-vmm"), "--runs", str(RUNS)]
    found = in_lab(["--icount"], "block_io.py", [*options, "yunju", "qemu", "qemu-uring", "yunju-layer"], 3600)

    def of(monitor, work):
        runs = [run for run in found.get(monitor, []) if run["work"] == work]
        if not runs:
            raise Missing(f"{monitor} did no {work}")
        return runs

    for work in WORK:
        ours, layer = of("yunju", work), of("yunju-layer", work)
        # The better one of its ways.
        peers = {name: of(name, work) for name in ("qemu", "qemu-uring")}
        best = max(peers, key=lambda name: median(peers[name], "per_second"))
        called = f"{peers[best][0]['peer']}, {'threads' if best == 'qemu' else 'io_uring'}"
        rate = median(ours, "per_second")
        yield Figure(f"block.{work}", rate, "operations/s", len(ours), called, median(peers[best], "per_second"), WHERE)
        yield Figure(f"block.{work}.layer", median(layer, "per_second"), "operations/s", len(layer), "our raw file", rate, WHERE)


parts = [disk]
