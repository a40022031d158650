"""The folds of a protocol, one after another or in parallel processes, on this machine or on a cluster."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

import joblib
import torch

from serfast.errors import CorpusError
from serfast.evaluation.fold import run_fold
from serfast.evaluation.fold_reports import FoldReport
from serfast.evaluation.results import FoldResult, UtterancePrediction
from serfast.evaluation.system import FoldContext, System

__all__ = ["run_folds"]

_IN_TURN = threading.Lock()
"""Folds in one process go one after another: training draws from the process's one random generator."""


def run_folds(
    members: Sequence[tuple[System, FoldContext]], reports: Sequence[FoldReport], *, jobs: int | None
) -> list[tuple[FoldResult, tuple[UtterancePrediction, ...]]]:
    """Run systems on folds through joblib and return what each gave, in their order.

    Every process maps the feature store from the same file; base folds are run where their fold is. A fold gets the
    same bits in any process with the same number of threads.

    Args:
        members: what learns, and the fold that it learns on.
        reports: where each says how far it is.
        jobs: processes on this machine, which share the threads that torch may use here; no more are started than there
            are folds and processor cores. With None joblib's configuration decides, which without
            ``joblib.parallel_config`` means this process.

    Raises:
        ValueError, CorpusError, RuntimeError: what a fold raised, naming the fold.
    """
    try:
        with _processes(jobs, len(members)):
            tasks = [
                joblib.delayed(_run)(system, context, report)
                for (system, context), report in zip(members, reports, strict=True)
            ]
            return list(joblib.Parallel(batch_size=1)(tasks))
    except BrokenExecutor as error:
        names = [context.title for (_, context), report in zip(members, reports, strict=True) if report.in_work()]
        raise RuntimeError(
            f"a worker process ended in the fold {' or '.join(names)}: {error} With fewer jobs each has more memory; "
            f"the same call goes on where this one stopped."
        ) from error


@contextmanager
def _processes(jobs: int | None, n_folds: int) -> Iterator[None]:
    if jobs is None:
        yield
        return
    n_processes = min(jobs, n_folds, joblib.cpu_count())
    n_threads = max(1, torch.get_num_threads() // n_processes)
    with joblib.parallel_config("loky", n_jobs=n_processes, inner_max_num_threads=n_threads):
        yield


def _run(
    system: System, context: FoldContext, report: FoldReport
) -> tuple[FoldResult, tuple[UtterancePrediction, ...]]:
    with _IN_TURN:
        report.begin()
        try:
            found, predictions = run_fold(system, context)
        except Exception as error:
            kind = next((kind for kind in (CorpusError, ValueError) if isinstance(error, kind)), RuntimeError)
            said = str(error) if isinstance(error, kind) else repr(error)
            raise kind(f"fold {context.title}: {said}") from error
        report.finish(found)
        return found, predictions
