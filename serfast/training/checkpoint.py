"""Training state and models on disk: tensors in safetensors, the rest as JSON in the same file's header.

One file holds all of it, so that a kill at any moment leaves the last complete state and nothing in between.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from serfast import atomic
from serfast.errors import CorpusError

__all__ = ["load_tensors", "merge_tensors", "save_tensors", "select_tensors"]


def save_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Replace the file at ``path`` by ``tensors`` and ``facts`` (whatever JSON can hold) in one step."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic.write_bytes(path, safetensors.torch.save(held, {"serfast": json.dumps(facts)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises:
        CorpusError: if the file is not one of serfast's.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            facts = json.loads(stream.metadata()["serfast"])
            return {name: stream.get_tensor(name) for name in stream.keys()}, facts  # noqa: SIM118 (no iterator)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path} must be a file of tensors written by serfast, got {error}") from error


def merge_tensors(**groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """One flat dictionary of several, each name prefixed by its group: ``model.decoder.weight``."""
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def select_tensors(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """The tensors of one group of :func:`merge_tensors`, prefix removed."""
    return {name[len(group) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{group}.")}
