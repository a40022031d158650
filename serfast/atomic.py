"""Whole files, written so that a reader or a restart sees the old content or the new, never a part."""

import json
import os
from pathlib import Path

__all__ = ["write_bytes", "write_json"]


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` by ``content`` in one step; only one process may write it at a time."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def write_json(path: Path, value: object) -> None:
    """Replace the file at ``path`` by ``value`` as indented JSON. NaN and infinity raise ``ValueError``."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
