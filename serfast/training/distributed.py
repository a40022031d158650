"""Data-parallel training: processes started by ``torchrun`` share every batch of one model.

The first process leads: it does all there is to do, and alone writes files. The others follow: they wait for the calls
of :func:`together` and run them with it.
"""

import atexit
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch

# Its functions keep the group that there is when it is imported, as a default: before there is one they keep none.
import torch.distributed.nn.functional
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["ALONE", "Ranks", "crew", "launched", "together"]

_LONGEST_WAIT = timedelta(days=7)  # of the followers, for a first process that extracts features, say

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The ``size`` processes that train one model, of which this is number ``rank``."""

    rank: int
    size: int

    def part(self, batch: NDArray[np.int64], weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], float]:
        """What this process does of a batch (utterance,), whose utterances weigh ``weights`` in its mean loss.

        Returns:
            The process's utterances, at least one, and a factor f: the mean over all processes of f times the mean loss
            of their part is the mean loss of the batch, and so are the gradients.
        """
        if len(batch) <= self.rank:
            return batch[:1], 0.0
        own = slice(self.rank, None, self.size)
        return batch[own], float(self.size * weights[own].sum() / weights.sum())

    def network(self, model: nn.Module) -> nn.Module:
        """What computes as ``model`` does and gives each parameter the mean of all processes' gradients."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def mean(self, value: float) -> float:
        """The mean of a number over the processes, in all of them."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total) / self.size

    def first(self, function: Callable[[], T]) -> T:
        """What ``function`` returns in the first process, the only one that calls it, in all of them."""
        return function() if self.size == 1 else _send(function() if self.rank == 0 else None)


ALONE = Ranks(0, 1)

_CREW = ContextVar("_CREW", default=ALONE)
"""The processes that wait for calls of this one."""


def launched() -> Ranks:
    """The processes that ``torchrun`` started; without it, this one alone."""
    if not distributed.is_torchelastic_launched():
        return ALONE
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextmanager
def crew() -> Iterator[bool]:
    """Whether the caller is the first process, and is to do the work. The others have followed it to its end then.

    In a process that was not started by ``torchrun``, True.
    """
    ranks = launched()
    if ranks.size == 1:
        yield True
        return
    if not distributed.is_initialized():
        _join()
    if ranks.rank == 0:
        before = _CREW.set(ranks)
        try:
            yield True
        finally:
            _CREW.reset(before)
        _send(None)
        return
    while (call := _send(None)) is not None:
        function, arguments = call
        function(*arguments, ranks=ranks)
    yield False


def together(function: Callable[..., T], *arguments: Any, **of_first: Any) -> T:
    """Call ``function(*arguments, ranks=...)`` in all processes of the crew, in the first with ``of_first`` too.

    Outside :func:`crew` this process calls it alone.
    """
    ranks = _CREW.get()
    if ranks.size > 1:
        _send((function, arguments))
    return function(*arguments, ranks=ranks, **of_first)


def _join() -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    atexit.register(_leave)


def _leave() -> None:
    # A thread of the group that lets go of a tensor when the interpreter has begun to end aborts the process. The group
    # waits for its threads when the last reference to it goes; DistributedDataParallel holds one, and lies in a cycle.
    gc.collect()
    distributed.destroy_process_group()


def _send(value: Any) -> Any:
    # From the first process to all.
    held = [value]
    distributed.broadcast_object_list(held, device=torch.device("cpu"))
    return held[0]
