"""The folder of a run: it belongs to one recipe on one set of splits, from the first file to the result."""

from pathlib import Path
from typing import Any

from serfast import atomic
from serfast.evaluation.protocol import Protocol
from serfast.evaluation.results import read_json

__all__ = ["RECIPE", "SPLITS", "claim"]

RECIPE, SPLITS = "recipe.json", "splits.json"
N_LISTED = 3


def claim(output: Path, recipe: dict[str, Any], protocol: Protocol) -> None:
    """Begin a run in the folder ``output``, or go on with one of the same recipe and splits.

    Raises:
        ValueError: if the folder holds other files, or a run that differs; the message says in what.
        CorpusError: if the run's files are damaged.
    """
    if not (output / RECIPE).exists():
        others = [entry.name for entry in output.iterdir() if entry.name != SPLITS and not entry.name.startswith(".")]
        if others:
            raise ValueError(f"output {output} must be an empty folder or hold a run, got one with {others[0]}")
        atomic.write_json(output / SPLITS, protocol.splits)
        atomic.write_json(output / RECIPE, recipe)  # last: it marks the folder as a run
        return
    stored, asked = _flat(read_json(output / RECIPE)), _flat(recipe)
    differing = [f"{name} {stored.get(name)!r}" for name in asked if stored.get(name) != asked[name]]
    splits = read_json(output / SPLITS)
    if not differing and splits.get("digest") != protocol.digest:
        differing = [_changed_recordings(splits.get("sources", {}), protocol.splits["sources"])]
    if differing:
        raise ValueError(
            f"output {output} must be empty or hold a run of the same recipe, got one with {', '.join(differing)}: "
            f"name another folder"
        )


def _changed_recordings(stored: dict[str, str], asked: dict[str, str]) -> str:
    keys = [key for key in sorted({*stored, *asked}) if stored.get(key) != asked.get(key)]
    if not keys:
        return "other folds of the same recordings"
    more = f" and {len(keys) - N_LISTED} more" if len(keys) > N_LISTED else ""
    return f"other recordings or none for {', '.join(keys[:N_LISTED])}{more}"


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat
