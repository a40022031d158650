"""Your own corpus: a CSV file with the columns ``file,emotion,speaker[,gender,session,start,end,split]``.

UTF-8, with or without a byte order mark. Files are relative to the manifest's folder, or absolute. ``start`` and
``end`` are seconds. The ``speaker`` column may be missing: then only a fixed split can be evaluated.
"""

import csv
from pathlib import Path

from serfast.corpora.corpus import Corpus
from serfast.corpora.manifest import COLUMNS, Row, read_rows
from serfast.errors import CorpusError

__all__ = ["load", "read_csv"]

_REQUIRED = ("file", "emotion")


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
    columns, rows = read_csv(path)
    for name in _REQUIRED:
        if name not in columns:
            raise CorpusError(f"{path}: manifest must have a column {name}, got {', '.join(columns) or 'nothing'}")
    if not rows:
        raise CorpusError(f"{path}: manifest must hold at least one row, got none")
    utterances = read_rows(path, rows)
    unknown = [name for name in columns if name not in COLUMNS]
    notes = (f"columns not used: {', '.join(unknown)}",) if unknown else ()
    emotions = tuple(sorted({utterance.emotion for utterance in utterances}))
    return Corpus(path.stem, utterances, emotions, notes)


def read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """The column names of a CSV file, and every row with its (last) line; what surrounds a cell is cut off.

    Raises:
        CorpusError: naming the line, if the file is not UTF-8, not CSV, or its rows do not fit distinct columns.
    """
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path}: file must be UTF-8, got byte 0x{error.object[error.start]:02x}") from error
        except csv.Error as error:
            raise CorpusError(f"{path}, line {reader.line_num}: line must be readable CSV, got: {error}") from error
    if len(set(columns)) < len(columns):
        raise CorpusError(f"{path}: columns must have distinct names, got {', '.join(columns)}")
    for line, row in rows:
        if len(row) != len(columns):
            raise CorpusError(f"{path}, line {line}: row must have {len(columns)} cells, got {len(row)}")
    return columns, [(f"line {line}", dict(zip(columns, row, strict=True))) for line, row in rows]
