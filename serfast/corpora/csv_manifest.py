"""Your own corpus: a CSV file with the columns ``file,emotion,speaker[,gender,session,start,end,split]``.

UTF-8, with or without a byte order mark. Files are relative to the manifest's folder, or absolute. ``start`` and
``end`` are seconds. The ``speaker`` column may be missing: then only a fixed split can be evaluated.
"""

import csv
import math
import os
from pathlib import Path

from serfast.corpora.corpus import GENDERS, SPLITS, Corpus, Utterance
from serfast.errors import CorpusError

__all__ = ["load"]

_COLUMNS = ("file", "emotion", "speaker", "gender", "session", "start", "end", "split")
_REQUIRED = ("file", "emotion")
_MAY_BE_EMPTY = ("gender", "start", "end")
_GENDER_NAMES = {"f": "female", "female": "female", "m": "male", "male": "male"}
_N_LISTED = 5


def load(root: str | Path) -> Corpus:
    """Load a corpus from a CSV manifest; unknown columns are not used, and named in the notes.

    Args:
        root: the manifest. The corpus takes its name.

    Raises:
        CorpusError: naming the line, if a column or a file is missing, a cell is empty, a number, gender or split does
            not read, a segment ends before it starts, a row occurs twice, or a speaker has two genders.
    """
    path = Path(root)
    if not path.is_file():
        found = "a folder" if path.exists() else "nothing there"
        raise CorpusError(f"{path}: manifest must be a CSV file, got {found}")
    columns, rows = _read(path)
    utterances = [(line, _utterance(path, line, row)) for line, row in rows]
    _check_rows_agree(path, utterances)
    _check_files_exist(path, utterances)
    unknown = [name for name in columns if name not in _COLUMNS]
    notes = (f"columns not used: {', '.join(unknown)}",) if unknown else ()
    emotions = tuple(sorted({utterance.emotion for _, utterance in utterances}))
    return Corpus(path.stem, tuple(utterance for _, utterance in utterances), emotions, notes)


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The column names, and every row with the number of its (last) line."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path}: manifest must be UTF-8, got byte 0x{error.object[error.start]:02x}") from error
        except csv.Error as error:
            raise CorpusError(f"{path}, line {reader.line_num}: line must be readable CSV, got: {error}") from error
    for name in _REQUIRED:
        if name not in columns:
            raise CorpusError(f"{path}: manifest must have a column {name}, got {', '.join(columns) or 'nothing'}")
    if len(set(columns)) < len(columns):
        raise CorpusError(f"{path}: columns must have distinct names, got {', '.join(columns)}")
    if not rows:
        raise CorpusError(f"{path}: manifest must hold at least one row, got none")
    for line, row in rows:
        if len(row) != len(columns):
            raise CorpusError(f"{path}, line {line}: row must have {len(columns)} cells, got {len(row)}")
    return columns, [(line, dict(zip(columns, row, strict=True))) for line, row in rows]


def _utterance(path: Path, line: int, row: dict[str, str]) -> Utterance:
    place = f"{path}, line {line}"
    for name in _COLUMNS:
        if row.get(name) == "" and name not in _MAY_BE_EMPTY:
            raise CorpusError(f"{place}: {name} must not be empty, got an empty cell")
    gender, split = row.get("gender") or None, row.get("split")
    if gender is not None and gender.lower() not in _GENDER_NAMES:
        raise CorpusError(f"{place}: gender must be f, m, {' or '.join(GENDERS)}, got {gender}")
    if split is not None and split not in SPLITS:
        raise CorpusError(f"{place}: split must be one of {', '.join(SPLITS)}, got {split}")
    start_s, end_s = _seconds(place, "start", row), _seconds(place, "end", row)
    if end_s is not None and end_s <= (start_s or 0.0):
        raise CorpusError(f"{place}: end must be greater than start {start_s or 0.0}, got {end_s}")
    file = Path(os.path.normpath(path.parent / row["file"]))
    return Utterance(
        key=_key(path.parent, file, start_s, end_s),
        path=file,
        emotion=row["emotion"],
        speaker=row.get("speaker"),
        gender=None if gender is None else _GENDER_NAMES[gender.lower()],
        session=row.get("session"),
        start_s=start_s or 0.0,
        end_s=end_s,
        split=split,
    )


def _seconds(place: str, name: str, row: dict[str, str]) -> float | None:
    cell = row.get(name, "")
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


def _check_rows_agree(path: Path, utterances: list[tuple[int, Utterance]]) -> None:
    """No utterance occurs twice, and no speaker has two genders."""
    lines: dict[str, int] = {}
    genders: dict[str, str] = {}
    for line, utterance in utterances:
        first = lines.setdefault(utterance.key, line)
        if first != line:
            raise CorpusError(
                f"{path}, line {line}: rows must be distinct, got {utterance.key} again after line {first}"
            )
        if utterance.speaker is not None and utterance.gender is not None:
            known = genders.setdefault(utterance.speaker, utterance.gender)
            if known != utterance.gender:
                raise CorpusError(
                    f"{path}, line {line}: gender of speaker {utterance.speaker} must be {known} as before, "
                    f"got {utterance.gender}"
                )


def _check_files_exist(path: Path, utterances: list[tuple[int, Utterance]]) -> None:
    present: dict[Path, bool] = {}
    missing: list[str] = []
    for line, utterance in utterances:
        if not present.setdefault(utterance.path, utterance.path.is_file()):
            missing.append(f"{utterance.path} (line {line})")
    if missing:
        listed = ", ".join(missing[:_N_LISTED])
        more = f" and {len(missing) - _N_LISTED} more" if len(missing) > _N_LISTED else ""
        raise CorpusError(f"{path}: every file must exist, got {len(missing)} rows without one: {listed}{more}")
