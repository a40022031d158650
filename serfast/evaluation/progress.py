"""Progress of long work, a line at a time, so that a terminal, a log file and a job queue show the same."""

import sys
import time
from dataclasses import dataclass, field

from serfast.evaluation.results import FoldResult
from serfast.features import ExtractionProgress
from serfast.training import EpochRecord

__all__ = ["FoldProgress", "Progress"]

EXTRACTION_LINE_EVERY_S = 2.0


@dataclass
class Progress:
    """Prints to standard error where an experiment stands; silent when ``shown`` is False."""

    shown: bool
    _last_line: float = field(default=0.0, init=False)

    def say(self, line: str) -> None:
        """Print one line."""
        if self.shown:
            print(line, file=sys.stderr, flush=True)

    def extraction(self, progress: ExtractionProgress) -> None:
        """Report an extraction, at most every two seconds and at its end."""
        now = time.monotonic()
        if progress.n_done < progress.n_utterances and now - self._last_line < EXTRACTION_LINE_EVERY_S:
            return
        self._last_line = now
        line = f"features: {progress.n_done}/{progress.n_utterances} utterances, "
        if progress.audio_s == 0:
            self.say(line + "stored already")
            return
        hours_per_second = progress.audio_s / 3600 / progress.elapsed_s
        left_s = progress.elapsed_s * (progress.n_utterances / progress.n_done - 1)
        self.say(
            line + f"{progress.audio_s / 60:,.1f} min of audio extracted, {hours_per_second:.2f} hours per second, "
            f"about {_clock(left_s)} left"
        )

    def of_fold(self, name: str, n_fold: int, n_folds: int) -> "FoldProgress":
        """What reports on one fold of an experiment, the ``n_fold``-th."""
        return FoldProgress(self, name, n_fold, n_folds)


@dataclass
class FoldProgress:
    """Reports the epochs and the end of one fold."""

    progress: Progress
    name: str
    n_fold: int
    n_folds: int
    _seconds: list[float] = field(default_factory=list, init=False)

    def epoch(self, record: EpochRecord) -> None:
        """Report an epoch, and the longest time that this stage of this fold can still take."""
        self._seconds.append(record.seconds)
        left_s = sum(self._seconds) / len(self._seconds) * (record.n_epochs - record.epoch)
        scores = "validation"
        if record.validation_ua is not None and record.validation_wa is not None:
            scores += f" UA {record.validation_ua:.3f} WA {record.validation_wa:.3f}"
        else:
            scores += f" loss {record.validation_loss:.3f}"
        self.progress.say(
            f"fold {self.n_fold}/{self.n_folds} {self.name}  epoch {record.epoch:>2}/{record.n_epochs}  "
            f"loss {record.loss:.3f}  {scores}{' *' if record.best else '  '}  "
            f"{record.seconds:.1f} s  at most {_clock(left_s)} left"
        )

    def finished(self, found: FoldResult) -> None:
        """Report the scores of the fold."""
        self.progress.say(f"fold {self.n_fold}/{self.n_folds} {self.name}  UA {found.ua:.3f} WA {found.wa:.3f}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
