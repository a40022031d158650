"""Progress of long work, a line at a time, so that a terminal, a log file and a job queue show the same."""

import sys
import time
from dataclasses import dataclass, field

from serfast.features import ExtractionProgress

__all__ = ["Progress", "clock"]

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
            f"about {clock(left_s)} left"
        )


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
