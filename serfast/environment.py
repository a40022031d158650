"""What this installation is made of: versions, built modules, SIMD level, threads, devices."""

import os
import platform
from importlib import metadata

import torch

from serfast import ops

__all__ = ["describe", "versions"]

_PACKAGES = ("serfast", "torch", "numpy", "numba", "soundfile", "soxr", "safetensors", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results can depend on; "absent" for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def describe() -> dict[str, str]:
    """Everything that a bug report needs, by name."""
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **versions(),
        "platform": platform.platform(),
        "cpu kernels": f"built, {ops.cpu_capability()}",
        "cuda kernels": "built" if ops.has_cuda_kernels() else "not built",
        "torch cuda": torch.version.cuda or "none",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "devices": ", ".join(["cpu", *cuda]),
    }
