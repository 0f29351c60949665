"""service: what the API, the edge and the memory of `yunju serve` cost."""

import statistics
import subprocess

from figures import ROOT, Figure, Missing, image, json_lines, program

PEERS = {"read": "axum and SQLite, bare", "write": "axum and SQLite, bare", "edge": "without the edge"}
NAMES = ("read.per_s", "read.p99_ms", "write.per_s", "write.p99_ms", "edge.mb_s", "edge.added_p99_ms", "memory_mib")


def figures():
    """the service with 1,000 desktops, and a stream through it, beside the least that could do the same"""
    stand_ins = ["cargo", "build", "--release", "--locked", "-p", "yunju", "--example", "fake-programs"]
    if subprocess.run(stand_ins, cwd=ROOT).returncode != 0:
        raise Missing("the stand-ins of the machines' programs cannot be built")
    lines = json_lines(["cargo", "bench", "--locked", "-p", "yunju", "--bench", "service"], 1800)
    if missing := set(NAMES) - {line["name"] for line in lines}:
        raise Missing(f"the bench printed no {', '.join(sorted(missing))}")
    for line in lines:
        peer = PEERS.get(line["name"].split(".")[0]) if line["peer_value"] else None
        yield Figure(f"service.{line['name']}", line["value"], line["unit"], line["n"], peer, line["peer_value"])


def portal():
    """the portal's first load in Chromium"""
    for name in ("yunju", "yunju-vmm", "yunju-vnc-proxy"):
        program(name)
    image("card")
    (load,) = json_lines(["node", "tests/bench/pixel/load.mjs"], 300)
    yield Figure("portal.first_load_kib", load["kib"], "KiB", len(load["times"]))
    yield Figure("portal.first_load_requests", load["requests"], "", len(load["times"]))
    yield Figure("portal.interactive_ms", statistics.median(load["times"]), "ms", len(load["times"]))


parts = [figures, portal]
