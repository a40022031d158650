"""The folds of a protocol, trained in the same steps of one process."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from serfast.evaluation.fold import FOLD, fold_lock, run_fold, write_outcome
from serfast.evaluation.fold_reports import FoldReport
from serfast.evaluation.recipe import Recipe
from serfast.evaluation.results import FoldResult, UtterancePrediction
from serfast.evaluation.system import FoldContext, System

__all__ = ["run_folds_side_by_side"]


def run_folds_side_by_side(
    system: System, contexts: Sequence[FoldContext], reports: Sequence[FoldReport]
) -> list[tuple[FoldResult, tuple[UtterancePrediction, ...]]]:
    """What :func:`serfast.evaluation.parallel.run_folds` returns, of folds whose models are trained side by side.

    Of a greedy scheme these are the models whose encoders are frozen; the heads follow one after another.

    Raises:
        ValueError: what a fold raised, naming the fold, or if models of ``system`` cannot be trained so.
    """
    if not isinstance(system, Recipe):
        raise ValueError(f"side_by_side must be False for systems other than a Recipe, got {type(system).__name__}")
    for report in reports:
        report.begin()
    if system.base is None:
        _train(system, contexts)
    else:
        _train(system.base, [replace(context, folder=context.base_folder) for context in contexts])
    found = []
    for context, report in zip(contexts, reports, strict=True):
        found.append(run_fold(system, context))
        report.finish(found[-1][0])
    return found


def _train(recipe: Recipe, contexts: Sequence[FoldContext]) -> None:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(fold_lock(context.folder))
        unfinished = [context for context in contexts if not (context.folder / FOLD).exists()]
        outcomes = recipe.fit_side_by_side(unfinished) if unfinished else []
        for context, outcome in zip(unfinished, outcomes, strict=True):
            write_outcome(outcome, context)
