"""How far the folds of a run are: written by the processes that train them, shown by the one that asked for them.

Each fold has a file of reports, in a folder of the run that the asking process deletes when it ends. Files reach as far
as the run's own folder does, so that folds on other machines are shown, and stopped, like those on this one.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serfast.evaluation.progress import Progress, clock
from serfast.evaluation.results import FoldResult
from serfast.training import EpochRecord

__all__ = ["FoldReport", "fold_reports"]

_PREFIX = ".reports-"
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class FoldReport:
    """The file of reports of one fold."""

    path: Path

    def begin(self) -> None:
        """Report that a process has taken the fold."""
        self._append({})

    def epoch(self, record: EpochRecord) -> None:
        """Report an epoch of any stage of the fold."""
        self._append({"epoch": asdict(record)})

    def finish(self, found: FoldResult) -> None:
        """Report the scores of the fold."""
        self._append({"ua": found.ua, "wa": found.wa})

    def in_work(self) -> bool:
        """Whether a process has taken the fold and not finished it."""
        return self.path.exists() and '"ua"' not in self.path.read_text(encoding="utf-8")

    def _append(self, report: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"time_s": time.time(), **report}) + "\n")
        except FileNotFoundError as error:
            raise RuntimeError("the run that asked for this fold must go on, got one that was stopped") from error


@contextmanager
def fold_reports(output: Path, names: Sequence[str], progress: Progress) -> Iterator[list[FoldReport]]:
    """Files for the reports of the folds ``names`` of the run in ``output``, which ``progress`` shows meanwhile.

    A fold that is still trained somewhere when the context ends, or was for a process that is no more, stops at its
    next report.
    """
    for left_behind in output.glob(f"{_PREFIX}*"):
        _delete(left_behind)
    folder = Path(tempfile.mkdtemp(dir=output, prefix=_PREFIX))
    reports = [FoldReport(folder / f"{number}.jsonl") for number in range(len(names))]
    folds = [
        _Fold(report.path, f"fold {number}/{len(names)} {name}")
        for number, (name, report) in enumerate(zip(names, reports, strict=True), start=1)
    ]
    try:
        with _shown(folds, progress) if progress.shown else nullcontext():
            yield reports
    finally:
        _delete(folder)


def _delete(folder: Path) -> None:
    # Renamed first: from then on no process can put a file into it.
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.deleted")))


@dataclass
class _Fold:
    """What is known of one fold; lines about it carry its ``title``."""

    path: Path
    title: str
    begun: bool = False
    finished: bool = False
    last: EpochRecord | None = None
    _taken_s: list[float] = field(default_factory=list)  # by the epochs of this stage, on the clock
    _told_s: float = 0.0  # when the last report was written
    _read_until: int = 0

    @property
    def left_s(self) -> float:
        """The longest time that this stage of the fold can still take."""
        if self.last is None:
            return 0.0
        return sum(self._taken_s) / len(self._taken_s) * (self.last.n_epochs - self.last.epoch)

    @property
    def takes_s(self) -> float:
        """The time that the last epoch took: where folds share their steps, that of all of them."""
        return self._taken_s[-1]

    def news(self) -> Iterator[tuple[str, bool]]:
        """A line for each report since the last call, and whether it ends the fold."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._read_until)
            new = stream.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_until += len(complete)
        self.begun = True
        for report in map(json.loads, complete.splitlines()):
            taken_s, self._told_s = report["time_s"] - self._told_s, report["time_s"]
            if "epoch" in report:
                yield self._take(EpochRecord(**report["epoch"]), taken_s), False
            elif "ua" in report:
                self.finished = True
                yield f"{self.title}  UA {report['ua']:.3f} WA {report['wa']:.3f}", True

    def _take(self, record: EpochRecord, taken_s: float) -> str:
        if self.last is not None and record.epoch <= self.last.epoch:
            self._taken_s = []  # another stage
        self.last = record
        self._taken_s.append(taken_s)
        return (
            f"{self.title}  epoch {record.epoch:>2}/{record.n_epochs}  loss {record.loss:.3f}  "
            f"validation {_validation(record)}{' *' if record.best else '  '}  {self.takes_s:.1f} s  "
            f"at most {clock(self.left_s)} left"
        )


def _validation(record: EpochRecord) -> str:
    if record.validation_ua is None or record.validation_wa is None:
        return f"loss {record.validation_loss:.3f}"
    return f"UA {record.validation_ua:.3f} WA {record.validation_wa:.3f}"


@contextmanager
def _shown(folds: Sequence[_Fold], progress: Progress) -> Iterator[None]:
    # In a terminal a table of the folds in work below the lines of the finished ones; elsewhere a line for each report.
    console = Console(stderr=True, highlight=False)
    stop = threading.Event()

    def look(live: Live | None) -> None:
        for fold in folds:
            for line, ends in fold.news():
                if live is None:
                    progress.say(line)
                elif ends:
                    console.print(line, markup=False)
        if live is not None:
            live.update(_table(folds), refresh=True)

    def watch(live: Live | None) -> None:
        while not stop.wait(_LOOK_EVERY_S):
            look(live)

    with ExitStack() as stack:
        live = None
        if console.is_terminal:
            live = stack.enter_context(Live(_table(folds), console=console, auto_refresh=False, transient=True))
        watcher = threading.Thread(target=watch, args=(live,), name="fold reports", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            look(live)


def _table(folds: Sequence[_Fold]) -> Table:
    n_finished = sum(fold.finished for fold in folds)
    table = Table(title=f"{n_finished} of {len(folds)} folds finished", title_justify="left")  # seen if folds are not
    table.add_column("fold")  # alone may take several lines where the terminal is narrow
    for column in ("epoch", "loss", "validation", "epoch takes", "at most left"):
        table.add_column(column, no_wrap=True)
    for fold in folds:
        if not fold.begun or fold.finished:
            continue
        name = Text(fold.title.removeprefix("fold "))
        if fold.last is None:
            table.add_row(name, "starting")
            continue
        record = fold.last
        epoch, loss, seconds = f"{record.epoch}/{record.n_epochs}", f"{record.loss:.3f}", f"{fold.takes_s:.1f} s"
        table.add_row(name, epoch, loss, _validation(record), seconds, clock(fold.left_s))
    return table
