"""How far an extraction of features is: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from serfast.evaluation.progress import Progress, clock
from serfast.features import ExtractionProgress

__all__ = ["extraction_report"]

LINE_EVERY_S = 2.0

_Report = Callable[[ExtractionProgress], None]


@contextmanager
def extraction_report(progress: Progress) -> Iterator[_Report]:
    """What an extraction calls to be shown by ``progress`` until the context ends."""
    console = Console(stderr=True, highlight=False)
    if not progress.shown or not console.is_terminal:
        yield _lines(progress)
        return
    with Bar(
        TextColumn("features"), BarColumn(), TextColumn("{task.description}", markup=False), console=console
    ) as bar:
        task = bar.add_task("", total=None)

        def show(reached: ExtractionProgress) -> None:
            bar.update(task, description=_figures(reached), completed=reached.n_done, total=reached.n_utterances)

        yield show


def _lines(progress: Progress) -> _Report:
    last = time.monotonic()

    def show(reached: ExtractionProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if reached.n_done == reached.n_utterances or now - last >= LINE_EVERY_S:
            last = now
            progress.say(f"features: {_figures(reached)}")

    return show


def _figures(reached: ExtractionProgress) -> str:
    counts = f"{reached.n_done}/{reached.n_utterances} utterances"
    if reached.audio_s == 0:
        return f"{counts}, stored already"
    hours = reached.audio_s / 3600
    left_s = reached.elapsed_s * (reached.n_utterances / reached.n_done - 1)
    return f"{counts}, {hours:.2f} h of audio, {hours / reached.elapsed_s:.2f} h per second, {clock(left_s)} left"
