"""What all groups of benchmarks share: figures, the host, where things are, how to run a program."""

import dataclasses
import json
import os
import platform
import re
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BINARIES = os.path.join(ROOT, "target/release")
OUTPUT = os.path.join(ROOT, "target/bench")
CACHE = os.environ.get("YUNJU_CACHE") or os.path.expanduser("~/.cache/yunju")


class Missing(Exception):
    """A benchmark cannot be run, or was run and gave no figure."""


@dataclasses.dataclass
class Figure:
    """One line of `target/bench/<group>.json`. `ratio` is ours / the peer's."""

    name: str
    value: float
    unit: str
    n: int
    peer: str | None = None
    peer_value: float | None = None
    where: str = "native"

    def line(self, host):
        ratio = self.value / self.peer_value if self.peer_value else None
        return {"name": self.name, "value": rounded(self.value), "unit": self.unit, "peer": self.peer,
                "peer_value": rounded(self.peer_value), "ratio": rounded(ratio), "n": self.n, "host": f"{host}; {self.where}"}


def rounded(value):
    """Four significant digits: no benchmark knows more."""
    return value if value is None else float(f"{value:.4g}")


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def program(name):
    """A release binary of ours."""
    path = os.path.join(BINARIES, name)
    if not os.access(path, os.X_OK):
        raise Missing(f"{path} is missing: run `make build`")
    return path


def image(name):
    """The folder of an image and what its image.json says."""
    folder = os.path.realpath(os.path.join(CACHE, "images", name))
    try:
        with open(os.path.join(folder, "image.json")) as file:
            return folder, json.load(file)
    except FileNotFoundError:
        raise Missing(f"the image {name} is missing: run `images/build {name}`") from None


def json_lines(command, patience, environment=None):
    """Runs a program whose standard output is JSON objects, one a line; its standard error is progress."""
    what = " ".join(command[:6])
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=patience,
                              env={**os.environ, **(environment or {})})
    except subprocess.TimeoutExpired:
        raise Missing(f"`{what} …` took more than {patience} s") from None
    except FileNotFoundError as error:
        raise Missing(f"{error.filename} is not installed: run `ci/setup`") from None
    if done.returncode != 0:
        raise Missing(f"`{what} …` ended with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def in_lab(options, script, arguments, patience):
    """Runs a script of `tests/bench/lab` in the nested lab; its JSON objects by the monitor that they are about."""
    command = ["ci/lab", "run", *options, "--", "python3", "-B", f"tests/bench/lab/{script}", *arguments]
    by_monitor = {}
    for found in json_lines(command, patience):
        by_monitor.setdefault(found["monitor"], []).append(found)
    return by_monitor


def host():
    """The machine as every figure names it: processor, cores, kernel, kind of KVM."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    # Its exit code says whether guests can run, which is not the question here.
    doctor = subprocess.run([program("yunju"), "doctor", "-o", "json"], capture_output=True, text=True)
    kvm = json.loads(doctor.stdout)["kvm"]
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {kvm} KVM"
