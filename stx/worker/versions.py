"""What an attempt ran on, for its outcome and the report: versions of the packages that make numbers, host, device.

No part of any digest or key. Read from the packages' metadata, so that nothing is imported for it.
"""

import platform
import socket
from importlib import metadata
from pathlib import Path

from stx.worker.device import device

PACKAGES = ("torch", "deepspeed", "diffusers", "timm", "numpy", "stx")


def versions() -> dict[str, str]:
    """{"python": .., each package: .., "host": .., "device": ..}; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # the sources run from a store without being installed
            continue
    return found | {"host": socket.gethostname(), "device": device_name()}


def device_name() -> str:
    """The GPU's name, or the processor's."""
    if device().type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(0))
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({named[0] if named else platform.machine()})"
