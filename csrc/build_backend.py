"""Build serfast against the torch that the environment already has (PEP 517 and 660).

Build isolation hides the installed torch, so the usual choices are to fail without it or to download a second,
different one. This backend names the environment's site-packages to the build instead: nothing is downloaded, and the
extension matches the torch it will run with. Only where there is no torch does it ask for one. ``SERFAST_BUILD_TORCH``
may name the site-packages that holds the torch to build against.

Source: PEP 517, PEP 660. Isolation edits ``sys.path`` only, so ``sysconfig`` still describes the environment itself.
"""

import os
import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta

OLDEST_TORCH = (2, 11)
STABLE_ABI_HEADER = "include/torch/csrc/stable/library.h"

Settings = Mapping[str, Any] | None


def _holds_torch(site_packages: Path) -> bool:
    """Whether the folder holds a torch that serfast can be built against."""
    version_file = site_packages / "torch" / "version.py"
    if not version_file.is_file() or not (site_packages / "torch" / STABLE_ABI_HEADER).is_file():
        return False
    version = re.search(r"__version__ = '(\d+)\.(\d+)", version_file.read_text(encoding="utf-8"))
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_TORCH


def _site_packages_with_torch() -> Path | None:
    """The folder that holds the torch to build against; None where there is none."""
    named = os.environ.get("SERFAST_BUILD_TORCH")
    if named is not None:
        if not _holds_torch(Path(named)):
            raise SystemExit(f"SERFAST_BUILD_TORCH must name a site-packages with torch >= 2.11, got {named}")
        return Path(named)
    candidates = dict.fromkeys(Path(sysconfig.get_path(scheme)) for scheme in ("platlib", "purelib"))
    return next((folder for folder in candidates if _holds_torch(folder)), None)


def _use_torch() -> None:
    """Let this process and its children import the torch to build against."""
    site_packages = _site_packages_with_torch()
    if site_packages is not None and str(site_packages) not in sys.path:
        sys.path.append(str(site_packages))


def _requirements(config_settings: Settings = None) -> list[str]:
    """What the build needs beside ``build-system.requires``: torch, unless the environment has it."""
    return [] if _site_packages_with_torch() is not None else [f"torch>={OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}"]


get_requires_for_build_wheel = _requirements
get_requires_for_build_editable = _requirements
get_requires_for_build_sdist = _requirements


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """PEP 517: write the wheel's metadata and name its folder."""
    _use_torch()
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    """PEP 660: write the editable wheel's metadata and name its folder."""
    _use_torch()
    return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """PEP 517: build the wheel and name its file."""
    _use_torch()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """PEP 660: build the extension in place and the wheel that points at the source tree."""
    _use_torch()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """PEP 517: pack the sources and name the archive."""
    _use_torch()
    return build_meta.build_sdist(sdist_directory, config_settings)
