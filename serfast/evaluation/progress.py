"""Where long work stands."""

import sys
from dataclasses import dataclass

__all__ = ["Progress", "clock"]


@dataclass
class Progress:
    """Prints to standard error where an experiment stands; silent when ``shown`` is False."""

    shown: bool

    def say(self, line: str) -> None:
        """Print one line."""
        if self.shown:
            print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
