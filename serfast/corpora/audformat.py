"""audformat: a folder with ``db.yaml`` and a file ``db.TABLE.csv`` or ``db.TABLE.parquet`` for each table.

What is read of it: tables of files and of segments whose column ``emotion`` holds one label for each (the raters' vote,
by convention); ``speaker``, ``gender`` and ``session`` from columns of these names in any table of files or segments;
the gender of a speaker also from the labels of the scheme ``speaker``, in the header or in a table of their own; and
the splits of type ``train``, ``dev`` and ``test`` that tables belong to. Format: audformat 1.4, audeering.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from serfast.corpora.corpus import GENDERS, Corpus
from serfast.corpora.csv_manifest import read_csv
from serfast.corpora.listing import listed
from serfast.corpora.manifest import Row, read_rows
from serfast.corpora.recordings import check_folder
from serfast.errors import CorpusError

__all__ = ["load"]

_HEADER = "db.yaml"
_ATTRIBUTES = ("emotion", "speaker", "gender", "session")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_DURATION = re.compile(r"(?:(?P<days>\d+) days?)? ?(?:(?P<h>\d+):(?P<min>\d\d):(?P<s>\d\d(?:\.\d+)?))?", re.ASCII)

_Segment: TypeAlias = tuple[str, str, str]
"""File, and where the segment starts and ends in seconds; empty for the start and the end of the file."""


def load(root: str | Path) -> Corpus:
    """Load an audformat database from its folder. The corpus takes its name.

    Utterances without a label are left out, and so are genders other than female and male; the notes count both.

    Raises:
        CorpusError: if the header or a table is missing or does not read, no table has a column ``emotion``, tables
            say different things of one utterance, or a row breaks a rule of ``serfast.corpora.manifest.read_rows``.
    """
    root = check_folder(root, corpus="audformat database")
    path = root / _HEADER
    header = _read_header(path)
    annotations, places = _annotations(root, header)
    if not places:
        listing = "; ".join(f"{name}: {', '.join(_columns(table))}" for name, table in header["tables"].items())
        raise CorpusError(f"{path}: a table must have a column emotion, got {listing or 'no tables'}")
    genders = _genders(root, header)
    other_genders: Counter[str] = Counter()
    rows: list[Row] = []
    for segment, place in places.items():
        file, start, end = segment
        of_file = {name: value for name, value in annotations.get((file, "", ""), {}).items() if name != "emotion"}
        cells = {**of_file, **annotations[segment], "file": file, "start": start, "end": end}
        if cells.get("speaker") in genders:
            cells.setdefault("gender", genders[cells["speaker"]])
        if "emotion" not in cells:
            continue
        if cells.get("gender", "") not in ("", *GENDERS):
            other_genders[cells.pop("gender")] += 1
        rows.append((place, cells))
    if not rows:
        raise CorpusError(f"{path}: utterances must have an emotion, got none that has one")
    notes = [f"left out {len(places) - len(rows)} utterances without a label"] if len(rows) < len(places) else []
    if other_genders:
        said = listed([f"{gender} {count}" for gender, count in sorted(other_genders.items())])
        notes.append(f"left out the gender of {other_genders.total()} utterances, not {' or '.join(GENDERS)}: {said}")
    emotions = tuple(sorted({cells["emotion"] for _, cells in rows}))
    return Corpus(str(header["name"]), read_rows(path, rows), emotions, tuple(notes))


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CorpusError(f"{path}: audformat header must be a file, got nothing there")
    try:
        header = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CorpusError(f"{path}: audformat header must be readable YAML, got: {error}") from error
    if not isinstance(header, dict) or "name" not in header:
        raise CorpusError(f"{path}: audformat header must hold the name of the database, got none")
    sections = ("schemes", "splits", "tables", "misc_tables")
    return {"name": header["name"], **{section: header.get(section) or {} for section in sections}}


def _columns(table: Mapping[str, Any]) -> Mapping[str, Any]:
    return table.get("columns") or {}


def _annotations(
    root: Path, header: Mapping[str, Any]
) -> tuple[defaultdict[_Segment, dict[str, str]], dict[_Segment, str]]:
    """What tables say of files and segments, and where each stands in a table with a column ``emotion``."""
    annotations: defaultdict[_Segment, dict[str, str]] = defaultdict(dict)
    places: dict[_Segment, str] = {}
    for name, table in header["tables"].items():
        attributes = [attribute for attribute in _ATTRIBUTES if attribute in _columns(table)]
        split = _split(root, header, name, table)
        if not attributes and split is None:
            continue
        path, rows = _read_table(root, name)
        for number, cells in enumerate(rows, start=1):
            segment = _segment(path, number, cells)
            if "emotion" in attributes:
                places.setdefault(segment, f"table {name}, row {number}")
            said = {attribute: cells.get(attribute, "") for attribute in attributes}
            for attribute, value in {**said, "split": split or ""}.items():
                known = annotations[segment].setdefault(attribute, value) if value else value
                if known != value:
                    raise CorpusError(
                        f"{path}, row {number}: {attribute} must be {known} as in a table before, got {value}"
                    )
    return annotations, places


def _split(root: Path, header: Mapping[str, Any], name: str, table: Mapping[str, Any]) -> str | None:
    split = table.get("split_id")
    if split is not None and split not in header["splits"]:
        raise CorpusError(f"{root / _HEADER}: split of table {name} must be among the splits, got {split}")
    return None if split is None else _SPLITS.get(header["splits"][split].get("type"))


def _genders(root: Path, header: Mapping[str, Any]) -> dict[str, str]:
    """The gender of every speaker whom the scheme ``speaker`` describes."""
    labels = (header["schemes"].get("speaker") or {}).get("labels")
    if isinstance(labels, str):
        if "gender" not in _columns(header["misc_tables"].get(labels) or {}):
            return {}
        _, rows = _read_table(root, labels)
        # The first column of such a table is its index: the labels of the scheme.
        return {next(iter(cells.values())): cells["gender"] for cells in rows}
    described = labels.items() if isinstance(labels, dict) else ()
    return {str(label): str(said["gender"]) for label, said in described if isinstance(said, dict) and "gender" in said}


def _read_table(root: Path, name: str) -> tuple[Path, list[Mapping[str, str]]]:
    """The file of a table, and its rows as text; durations in seconds, nothing for a missing value."""
    path = root / f"db.{name}.parquet"
    if path.is_file():
        return path, _read_parquet(path)
    path = root / f"db.{name}.csv"
    if not path.is_file():
        raise CorpusError(f"{path}: table must be there as .csv or .parquet, got neither")
    return path, [cells for _, cells in read_csv(path)[1]]


def _read_parquet(path: Path) -> list[Mapping[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path}: table must be readable Parquet, got: {error}") from error
    columns = []
    for column in table.columns:
        if pa.types.is_duration(column.type):
            ns = column.cast(pa.duration("ns")).cast(pa.int64()).to_pylist()
            columns.append(["" if value is None else repr(value / 1e9) for value in ns])
        else:
            columns.append(["" if value is None else str(value) for value in column.to_pylist()])
    return [dict(zip(table.column_names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _segment(path: Path, number: int, cells: Mapping[str, str]) -> _Segment:
    if "file" not in cells:
        raise CorpusError(f"{path}: table must have a column file, got {', '.join(cells)}")
    seconds = []
    for name in ("start", "end"):
        cell = cells.get(name, "")
        if path.suffix == ".csv" and cell:
            cell = _seconds(f"{path}, row {number}: {name}", cell)
        seconds.append(cell)
    start, end = seconds
    return cells["file"], "" if start == "0.0" else start, end


def _seconds(place: str, cell: str) -> str:
    duration = _DURATION.fullmatch(cell)
    if duration is None:
        raise CorpusError(f"{place} must be a duration such as 0 days 00:00:01.250000, got {cell}")
    days, hours, minutes = (int(duration[name] or 0) for name in ("days", "h", "min"))
    return repr(float(((days * 24 + hours) * 60 + minutes) * 60 + Decimal(duration["s"] or 0)))
