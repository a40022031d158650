"""The folds of a protocol, trained in the same steps of one process."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import joblib
import torch

from serfast.checks import flag
from serfast.evaluation.fold import FOLD, fold_lock, run_fold, write_outcome
from serfast.evaluation.fold_reports import FoldReport
from serfast.evaluation.results import FoldResult, UtterancePrediction
from serfast.evaluation.system import FoldContext, System

__all__ = ["goes_side_by_side", "learn_side_by_side", "run_folds_side_by_side"]

_MOST = 32  # folds at a time


def goes_side_by_side(asked: bool | None, device: torch.device, *, jobs: int | None, can: bool = True) -> bool:
    """Whether folds are trained in the same steps: as ``asked``; when None, on a GPU if they ``can``.

    Then they do not if ``jobs`` or joblib's configuration sends them to other processes.

    Raises:
        TypeError: if ``asked`` is neither None, True nor False.
    """
    if asked is not None:
        return flag("side_by_side", asked)
    stays = jobs is None and joblib.Parallel().n_jobs == 1
    return can and device.type == "cuda" and stays


def run_folds_side_by_side(
    members: Sequence[tuple[System, FoldContext]], reports: Sequence[FoldReport]
) -> list[tuple[FoldResult, tuple[UtterancePrediction, ...]]]:
    """What :func:`serfast.evaluation.parallel.run_folds` returns, of folds whose models are trained side by side.

    The systems differ in the seed only. Their bases, if they have any, are trained side by side too, in the folds that
    are not finished. At most 32 folds share their steps: their rows and steps must fit a GPU together.

    Raises:
        ValueError: what a fold raised, naming the fold, or if the systems cannot be trained so.
    """
    found = []
    n_times = -(-len(members) // _MOST)
    for place in range(n_times):
        own = slice(len(members) * place // n_times, len(members) * (place + 1) // n_times)
        for report in reports[own]:
            report.begin()
        found += learn_side_by_side(members[own])
        for (result, _), report in zip(found[own], reports[own], strict=True):
            report.finish(result)
    return found


def learn_side_by_side(
    members: Sequence[tuple[System, FoldContext]],
) -> list[tuple[FoldResult, tuple[UtterancePrediction, ...]]]:
    """As :func:`serfast.evaluation.fold.run_fold` of each member, all in the same steps; their bases before them."""
    fit = members[0][0].fit_side_by_side
    if fit is None:
        raise ValueError(f"side_by_side must be False for this system, got True for {type(members[0][0]).__name__}")
    with ExitStack() as stack:
        for _, context in members:
            stack.enter_context(fold_lock(context.folder))
        unfinished = [(system, context) for system, context in members if not (context.folder / FOLD).exists()]
        if unfinished:
            bases = [
                (system.base, replace(context, folder=context.base_folder))
                for system, context in unfinished
                if system.base is not None
            ]
            if bases:
                learn_side_by_side(bases)
            for (_, context), outcome in zip(unfinished, fit(unfinished), strict=True):
                write_outcome(outcome, context)
    return [run_fold(system, context) for system, context in members]
