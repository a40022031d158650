"""Random numbers of torch that do not depend on what else draws some."""

from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomStream"]


class RandomStream:
    """A context in which torch's generators draw from a stream of their own, each time where they left off.

    Args:
        seeds: numbers that fix the stream, up to four of 32 bits each; a 0 at the end changes nothing.
        device: whose generator is meant, beside that of the CPU.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._device = device
        self._others = self._states()
        seed = int(np.random.SeedSequence(list(seeds)).generate_state(1)[0])
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        self._own = self._states()
        self._set(self._others)

    def __enter__(self) -> None:
        """Take over torch's generators."""
        self._others = self._states()
        self._set(self._own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give them back as they were."""
        self._own = self._states()
        self._set(self._others)

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return states if self._device.type == "cpu" else [*states, torch.cuda.get_rng_state(self._device)]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self._device)
