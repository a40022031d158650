"""Labelled rows, as a manifest or a table lists them, become utterances: the rules that every row must keep."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from serfast.corpora.corpus import GENDERS, SPLITS, Utterance
from serfast.corpora.listing import listed
from serfast.errors import CorpusError

__all__ = ["COLUMNS", "Row", "read_rows"]

COLUMNS = ("file", "emotion", "speaker", "gender", "session", "start", "end", "split")
_MAY_BE_EMPTY = ("gender", "start", "end")
_GENDER_NAMES = {"f": "female", "female": "female", "m": "male", "male": "male"}

Row: TypeAlias = tuple[str, Mapping[str, str]]
"""Where the row stands, such as ``line 3``, and its cells by column."""


def read_rows(path: Path, rows: Sequence[Row]) -> tuple[Utterance, ...]:
    """The utterance of every row.

    Args:
        path: what the rows were read from; their files are relative to its folder, or absolute.
        rows: cells of the columns ``COLUMNS``, of which all but ``file`` and ``emotion`` may be missing. Seconds.

    Raises:
        CorpusError: naming the row, if a cell is empty, a number, gender or split does not read, a segment ends before
            it starts, a row occurs twice, a speaker has two genders, or files are missing.
    """
    utterances = [(where, _utterance(path, where, cells)) for where, cells in rows]
    _check_rows_agree(path, utterances)
    _check_files_exist(path, utterances)
    return tuple(utterance for _, utterance in utterances)


def _utterance(path: Path, where: str, cells: Mapping[str, str]) -> Utterance:
    place = f"{path}, {where}"
    for name in COLUMNS:
        if cells.get(name) == "" and name not in _MAY_BE_EMPTY:
            raise CorpusError(f"{place}: {name} must not be empty, got an empty cell")
    gender, split = cells.get("gender") or None, cells.get("split")
    if gender is not None and gender.lower() not in _GENDER_NAMES:
        raise CorpusError(f"{place}: gender must be f, m, {' or '.join(GENDERS)}, got {gender}")
    if split is not None and split not in SPLITS:
        raise CorpusError(f"{place}: split must be one of {', '.join(SPLITS)}, got {split}")
    start_s, end_s = _seconds(place, "start", cells), _seconds(place, "end", cells)
    if end_s is not None and end_s <= (start_s or 0.0):
        raise CorpusError(f"{place}: end must be greater than start {start_s or 0.0}, got {end_s}")
    file = Path(os.path.normpath(path.parent / cells["file"]))
    return Utterance(
        key=_key(path.parent, file, start_s, end_s),
        path=file,
        emotion=sys.intern(cells["emotion"]),  # one string for all rows that say the same
        speaker=_shared(cells.get("speaker")),
        gender=None if gender is None else _GENDER_NAMES[gender.lower()],
        session=_shared(cells.get("session")),
        start_s=start_s or 0.0,
        end_s=end_s,
        split=_shared(split),
    )


def _shared(name: str | None) -> str | None:
    return None if name is None else sys.intern(name)


def _seconds(place: str, name: str, cells: Mapping[str, str]) -> float | None:
    cell = cells.get(name, "")
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise CorpusError(f"{place}: {name} must be a number of seconds, at least 0, got {cell}")
    return seconds


def _key(folder: Path, file: Path, start_s: float | None, end_s: float | None) -> str:
    folder = Path(os.path.normpath(folder))
    name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()
    if not start_s and end_s is None:
        return name
    return f"{name}#{start_s or 0.0}-{'end' if end_s is None else end_s}"


def _check_rows_agree(path: Path, utterances: list[tuple[str, Utterance]]) -> None:
    """No utterance occurs twice, and no speaker has two genders."""
    places: dict[str, str] = {}
    genders: dict[str, str] = {}
    for where, utterance in utterances:
        first = places.setdefault(utterance.key, where)
        if first != where:
            raise CorpusError(f"{path}, {where}: rows must be distinct, got {utterance.key} again after {first}")
        if utterance.speaker is not None and utterance.gender is not None:
            known = genders.setdefault(utterance.speaker, utterance.gender)
            if known != utterance.gender:
                raise CorpusError(
                    f"{path}, {where}: gender of speaker {utterance.speaker} must be {known} as before, "
                    f"got {utterance.gender}"
                )


def _check_files_exist(path: Path, utterances: list[tuple[str, Utterance]]) -> None:
    present = {path for path in {utterance.path for _, utterance in utterances} if path.is_file()}
    missing = [f"{utterance.path} ({where})" for where, utterance in utterances if utterance.path not in present]
    if missing:
        raise CorpusError(f"{path}: every file must exist, got {len(missing)} rows without one: {listed(missing)}")
