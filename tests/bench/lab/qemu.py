"""The peer in the lab."""

import re
import subprocess


def name():
    """Its name and version."""
    version = subprocess.check_output(["qemu-system-x86_64", "--version"], text=True)
    return f"QEMU {re.search(r'version ([0-9.]+)', version)[1]} microvm"
