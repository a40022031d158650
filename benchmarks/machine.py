"""What a recorded result was measured on."""

import os
import platform
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

__all__ = ["machine"]

_PACKAGES = (
    "numpy",
    "numba",
    "librosa",
    "praat-parselmouth",
    "pysptk",
    "pyreaper",
    "pyworld",
    "kaldi-native-fbank",
    "opensmile",
    "soundfile",
    "soxr",
    "pyarrow",
)


def machine() -> dict[str, object]:
    """Processor, cores, load, versions and the command."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": versions,
        "command": " ".join(["python", *sys.orig_argv[1:]]),
    }
