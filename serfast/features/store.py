"""The feature store: every utterance's features in one memory-mapped file, and an Arrow table that says whose.

A store is a folder. ``rows.f32`` holds float32 rows (row, feature), little-endian, utterances end to end.
``index.arrow`` maps each utterance to its first row and number of frames and carries its labels, so that a store alone
is enough to train; behind the utterances that it presents stand others that it keeps, without labels. Rows are written
first and the index replaces the old one in a single step: what an interrupted extraction left behind the last index is
cut off by the next.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from serfast import atomic
from serfast.corpora import Corpus, Utterance
from serfast.errors import CorpusError
from serfast.features.options import FeatureOptions

__all__ = ["FeatureStore", "StoreWriter"]

FORMAT_VERSION = 2
_ROWS, _INDEX = "rows.f32", "index.arrow"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("first_row", pa.int64()),
        ("n_frames", pa.int64()),
        ("path", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("emotion", pa.string()),
        ("speaker", pa.string()),
        ("gender", pa.string()),
        ("session", pa.string()),
        ("split", pa.string()),
    ]
)
_NO_LISTING: dict[str, Any] = {"corpus": None, "emotions": [], "notes": [], "broken": {}}
"""What the header says of the presented corpus while there is none."""
_PLACE = ("key", "source", "first_row", "n_frames")
_LABELS = tuple(field.name for field in dataclasses.fields(Utterance))


@dataclass(frozen=True)
class FeatureStore:
    """Features of a corpus on disk, one entry per utterance of ``corpus``.

    ``first_rows`` and ``lengths`` (utterance,) locate the frames of each utterance in ``rows`` (row, feature).
    ``sources`` are content digests of the recordings' files. ``broken`` maps the key of each utterance that could not
    be extracted to the reason; those utterances are not in ``corpus``.
    """

    path: Path
    corpus: Corpus
    options: FeatureOptions
    feature_names: tuple[str, ...]
    first_rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    sources: tuple[str, ...]
    broken: dict[str, str]

    @classmethod
    def open(cls, path: str | Path) -> "FeatureStore":
        """Open the store in the folder ``path``.

        Raises:
            CorpusError: if there is no store, an extraction into it was not finished, it was made by another version of
                serfast, or its rows were cut off.
        """
        path = Path(path)
        table, _, header = _read_index(path)
        if header["corpus"] is None:
            raise CorpusError(
                f"{path} must be a finished feature store, got one whose extraction stopped: extract again"
            )
        options = FeatureOptions.from_dict(header["options"])
        if header["digest"] != options.digest():
            raise CorpusError(f"{path} must hold features of this version of serfast, got other ones: extract again")
        corpus = Corpus(header["corpus"], _utterances(table), tuple(header["emotions"]), tuple(header["notes"]))
        first_rows, lengths = table["first_row"].to_numpy(), table["n_frames"].to_numpy()
        needed = int((first_rows + lengths).max(initial=0))
        n_rows = _n_rows(path, len(header["feature_names"]))
        if n_rows < needed:
            raise CorpusError(f"{path / _ROWS} must hold {needed} rows, got {n_rows}: extract the features again")
        return cls(
            path=path,
            corpus=corpus,
            options=options,
            feature_names=tuple(header["feature_names"]),
            first_rows=first_rows,
            lengths=lengths,
            sources=tuple(table["source"].to_pylist()),
            broken=header["broken"],
        )

    def __getstate__(self) -> dict[str, Any]:
        """All but the mapped rows: another process maps the file itself."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """All rows (row, feature), memory-mapped and read-only."""
        n_features = len(self.feature_names)
        n_rows = _n_rows(self.path, n_features)
        if n_rows == 0:
            return np.empty((0, n_features), np.float32)
        return np.memmap(self.path / _ROWS, dtype="<f4", mode="r", shape=(n_rows, n_features))

    def utterance_rows(self, index: int) -> NDArray[np.float32]:
        """Features (frame, feature) of one utterance, a view of the file."""
        first = int(self.first_rows[index])
        return self.rows[first : first + int(self.lengths[index])]

    def gather(self, indices: Iterable[int]) -> NDArray[np.float32]:
        """Copy the features of several utterances end to end: packed rows (row, feature)."""
        return np.concatenate([self.utterance_rows(index) for index in indices])

    def restrict(self, keep: Iterable[int]) -> "FeatureStore":
        """The same rows, seen as a corpus of the utterances ``keep`` only."""
        kept = np.array(list(keep), dtype=np.int64)
        utterances = tuple(self.corpus.utterances[index] for index in kept)
        return dataclasses.replace(
            self,
            corpus=dataclasses.replace(self.corpus, utterances=utterances),
            first_rows=self.first_rows[kept],
            lengths=self.lengths[kept],
            sources=tuple(self.sources[index] for index in kept),
        )


class StoreWriter:
    """Adds utterances to a store. What was written counts from the next :meth:`commit` or :meth:`finish` on."""

    def __init__(self, path: str | Path, options: FeatureOptions, feature_names: tuple[str, ...]) -> None:
        """Open the store in the folder ``path`` for writing, or begin one; wait while another process writes it.

        A store in a folder that must not be written, as on a read-only file system, can still tell what it holds.

        Raises:
            ValueError: if the folder holds features of other options.
            CorpusError: if its index cannot be read.
        """
        self._path = Path(path)
        self._options, self._feature_names = options, feature_names
        self._path.mkdir(parents=True, exist_ok=True)
        self._writable = os.access(self._path, os.W_OK)
        self._lock = FileLock(self._path / ".lock")
        if self._writable:
            _acquire(self._lock, self._path)
        try:
            self._located: dict[tuple[str, str], tuple[int, int]] = {}
            self._listed = _SCHEMA.empty_table()
            self._listing: dict[str, Any] = _NO_LISTING
            self._n_rows = 0
            if (self._path / _INDEX).exists():
                self._take_over()
            if self._writable:
                self._stream = (self._path / _ROWS).open("r+b" if (self._path / _ROWS).exists() else "w+b")
                self._stream.truncate(4 * self._n_rows * len(feature_names))
                self._stream.seek(0, os.SEEK_END)
        except BaseException:
            self._lock.release()
            raise

    def _take_over(self) -> None:
        listed, unlisted, header = _read_index(self._path)
        if header["digest"] != self._options.digest():
            stored = header["options"]
            differing = [
                f"{name} {stored.get(name)!r}"
                for name, value in self._options.to_dict().items()
                if stored.get(name) != value
            ]
            raise ValueError(
                f"store {self._path} must hold features of the options asked for, got features of "
                f"{', '.join(differing) or 'an earlier version of serfast'}: name another folder"
            )
        n_rows = _n_rows(self._path, len(self._feature_names))
        for key, source, first_row, count in chain(_places(listed), _places(unlisted)):
            if first_row + count <= n_rows:  # rows that were cut off are extracted again
                self._located[key, source] = (first_row, count)
                self._n_rows = max(self._n_rows, first_row + count)
        if all((key, source) in self._located for key, source, _, _ in _places(listed)):
            self._listed, self._listing = listed, {name: header[name] for name in _NO_LISTING}

    def holds(self, key: str, source: str) -> bool:
        """Whether the utterance ``key`` has been written from the recording content ``source``."""
        return (key, source) in self._located

    def append(self, key: str, source: str, features: NDArray[np.float32]) -> None:
        """Write the features (frame, feature) of one utterance behind the rows written so far.

        Raises:
            CorpusError: if the folder must not be written.
        """
        if not self._writable:
            raise CorpusError(f"{self._path} must be writable to take the features of {key}, got a read-only folder")
        self._stream.write(np.ascontiguousarray(features, dtype="<f4").tobytes())
        self._located[key, source] = (self._n_rows, len(features))
        self._n_rows += len(features)

    def commit(self) -> None:
        """Make what was written so far survive a stop. What the store presents stays as it was."""
        if not self._writable:
            return
        self._stream.flush()
        os.fsync(self._stream.fileno())
        present = {(key, source) for key, source, _, _ in _places(self._listed)}
        header = {
            "format": FORMAT_VERSION,
            "options": self._options.to_dict(),
            "digest": self._options.digest(),
            "feature_names": list(self._feature_names),
            **self._listing,
            "n_listed": len(self._listed),
        }
        unlisted = [(*name, *place) for name, place in self._located.items() if name not in present]
        columns = {name: [entry[number] for entry in unlisted] for number, name in enumerate(_PLACE)}
        places = pa.table(columns, schema=pa.schema([_SCHEMA.field(name) for name in _PLACE]))
        table = pa.concat_tables([self._listed, places], promote_options="default")
        table = table.replace_schema_metadata({"serfast": json.dumps(header)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        atomic.write_bytes(self._path / _INDEX, sink.getvalue())

    def finish(self, corpus: Corpus, sources: dict[str, str], broken: dict[str, str]) -> FeatureStore:
        """Commit, and present the store as ``corpus``, without the utterances that have not been written.

        :meth:`FeatureStore.open` presents it so, too, unless it has already more utterances than ``corpus``: a part
        of a corpus does not hide the rest of it.

        Args:
            corpus: what was extracted.
            sources: content digest of the recording of each utterance, by key.
            broken: reason by key of each utterance that could not be extracted.
        """
        written = [
            utterance for utterance in corpus.utterances if self.holds(utterance.key, sources.get(utterance.key, ""))
        ]
        table = self._table(written, sources)
        if not {utterance.key for utterance in written} < set(self._listed["key"].to_pylist()):
            self._listed = table
            self._listing = {
                "corpus": corpus.name,
                "emotions": list(corpus.emotions),
                "notes": list(corpus.notes),
                "broken": broken,
            }
        self.commit()
        return FeatureStore(
            path=self._path,
            corpus=dataclasses.replace(corpus, utterances=tuple(written)),
            options=self._options,
            feature_names=self._feature_names,
            first_rows=table["first_row"].to_numpy(),
            lengths=table["n_frames"].to_numpy(),
            sources=tuple(sources[utterance.key] for utterance in written),
            broken=broken,
        )

    def _table(self, utterances: list[Utterance], sources: dict[str, str]) -> pa.Table:
        places = [self._located[utterance.key, sources[utterance.key]] for utterance in utterances]
        columns: dict[str, list[Any]] = {name: [getattr(item, name) for item in utterances] for name in _LABELS}
        columns["path"] = [str(path) for path in columns["path"]]
        columns["source"] = [sources[key] for key in columns["key"]]
        columns["first_row"], columns["n_frames"] = [first for first, _ in places], [count for _, count in places]
        return pa.table(columns, schema=_SCHEMA)

    def close(self) -> None:
        """Release the file. What was not committed is dropped by the next writer."""
        if self._writable:
            self._stream.close()
            self._lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for {path}: another process writes it", file=sys.stderr)
        lock.acquire()


def _n_rows(path: Path, n_features: int) -> int:
    rows = path / _ROWS
    return rows.stat().st_size // (4 * n_features) if rows.exists() else 0


def _places(table: pa.Table) -> Iterator[tuple[str, str, int, int]]:
    # Key, source, first row and frames of every utterance
    return zip(*(table[name].to_pylist() for name in _PLACE), strict=True)


def _utterances(table: pa.Table) -> tuple[Utterance, ...]:
    columns = {name: table[name].to_pylist() for name in _LABELS}
    columns["path"] = [Path(path) for path in columns["path"]]
    for name in ("emotion", "speaker", "gender", "session", "split"):  # few values, and as many strings as utterances
        columns[name] = [value if value is None else sys.intern(value) for value in columns[name]]
    return tuple(Utterance(*values) for values in zip(*columns.values(), strict=True))


def _read_index(path: Path) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    # Utterances that are presented, others that are stored, and the header
    if not (path / _INDEX).is_file():
        raise CorpusError(f"{path} must be a feature store, got a folder without {_INDEX}")
    try:
        with pa.ipc.open_file(path / _INDEX) as reader:
            table = reader.read_all()
        header = json.loads(table.schema.metadata[b"serfast"])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path / _INDEX} must be the index of a feature store, got {error}") from error
    if header["format"] != FORMAT_VERSION:
        raise CorpusError(f"{path / _INDEX} must have format {FORMAT_VERSION}, got {header['format']}: extract again")
    return table[: header["n_listed"]], table[header["n_listed"] :], header
