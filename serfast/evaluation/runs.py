"""Runs: a system over the folds of a protocol, in a folder that can be stopped and resumed."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from serfast.checks import integer, require
from serfast.evaluation.fold import fold_folder
from serfast.evaluation.fold_reports import fold_reports
from serfast.evaluation.parallel import run_folds
from serfast.evaluation.progress import Progress
from serfast.evaluation.protocol import SINGLE, Protocol
from serfast.evaluation.results import RESULT, FoldResult, Result, UtterancePrediction, score_predictions
from serfast.evaluation.run_folder import claim
from serfast.evaluation.side_by_side import run_folds_side_by_side
from serfast.evaluation.system import FoldContext, System
from serfast.features import FeatureStore

__all__ = ["SystemRun", "run_systems"]


@dataclass(frozen=True)
class SystemRun:
    """A system, and the folder that its run over the folds is in.

    The folds of its base system are read from, or put into, ``base_output``. ``label`` is told with each fold, where
    there are several runs.
    """

    system: System
    output: Path
    base_output: Path
    label: str = ""


def run_systems(
    runs: Sequence[SystemRun],
    features: FeatureStore,
    protocol: Protocol,
    *,
    exclude: Sequence[str],
    device: torch.device,
    progress: Progress,
    jobs: int | None = None,
    side_by_side: bool = False,
    remarks: Sequence[str] = (),
) -> list[Result]:
    """Run systems that differ in the seed only over the folds of ``protocol``, or read their finished runs.

    The folds of all go side by side, or wherever there is room for one. ``jobs`` and ``side_by_side`` are those of
    :func:`serfast.cross_validate`; ``remarks`` go into the results' notes.

    Raises:
        ValueError: if an output is in use or holds anything but its run, ``jobs`` is not positive, or ``side_by_side``
            does not go with ``jobs`` or the systems.
        CorpusError: if the files of a run are damaged.
    """
    if jobs is not None:
        require("jobs", "be at least 1", jobs, integer("jobs", jobs) >= 1)
        require("jobs", "be None with side_by_side", jobs, not side_by_side)
    results: dict[Path, Result] = {}
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(_locked(run.output))
            claim(run.output, {"protocol": protocol.name, **_identity(features, run.system, exclude)}, protocol)
            if (run.output / RESULT).exists():
                progress.say(f"{run.output} holds this run, finished: nothing to do")
                results[run.output] = Result.load(run.output)
        unfinished = [run for run in runs if run.output not in results]
        if unfinished:
            found = _folds(unfinished, features, protocol, device, progress, jobs=jobs, side_by_side=side_by_side)
            for run, own in zip(unfinished, found, strict=True):
                result = _pool(features, protocol, own, exclude=exclude, output=run.output, remarks=remarks)
                result.save()
                results[run.output] = result
    return [results[run.output] for run in runs]


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise ValueError(f"output {output} must not be in use, got a folder that another process trains in") from error


def _folds(
    runs: Sequence[SystemRun],
    features: FeatureStore,
    protocol: Protocol,
    device: torch.device,
    progress: Progress,
    *,
    jobs: int | None,
    side_by_side: bool,
) -> list[list[tuple[FoldResult, tuple[UtterancePrediction, ...]]]]:
    """What each fold of each run gave."""
    single = protocol.name == SINGLE
    places = [(run, fold) for run in runs for fold in protocol.folds]
    titles = [f"{fold.name} {run.label}" if len(runs) > 1 else fold.name for run, fold in places]
    with fold_reports(runs[0].output, titles, progress) as reports:
        members = [
            (
                run.system,
                FoldContext(
                    features,
                    fold,
                    run.output if single else fold_folder(run.output, fold.name),
                    run.base_output if single else fold_folder(run.base_output, fold.name),
                    device,
                    report.epoch,
                    title,
                ),
            )
            for (run, fold), report, title in zip(places, reports, titles, strict=True)
        ]
        found = run_folds_side_by_side(members, reports) if side_by_side else run_folds(members, reports, jobs=jobs)
    n_folds = len(protocol.folds)
    return [found[first : first + n_folds] for first in range(0, len(found), n_folds)]


def _identity(features: FeatureStore, system: System, exclude: Sequence[str]) -> dict[str, Any]:
    # With the splits, all that decides what a run computes.
    return {
        "corpus": features.corpus.name,
        "emotions": list(features.corpus.emotions),
        "exclude": sorted(exclude),
        **system.to_dict(),
        "features": features.options.to_dict(),
        "features_digest": features.options.digest(),
    }


def _pool(
    features: FeatureStore,
    protocol: Protocol,
    found: Sequence[tuple[FoldResult, tuple[UtterancePrediction, ...]]],
    *,
    exclude: Sequence[str],
    output: Path,
    remarks: Sequence[str],
) -> Result:
    folds = tuple(fold for fold, _ in found)
    predictions = tuple(row for _, rows in found for row in rows)
    return Result(
        corpus=features.corpus.name,
        protocol=protocol.name,
        part=protocol.scored_part,
        emotions=features.corpus.emotions,
        pooled=score_predictions(predictions, features.corpus.emotions),
        folds=folds,
        predictions=predictions,
        splits_digest=protocol.digest,
        training_seconds=sum(fold.seconds for fold in folds),
        excluded=tuple(sorted(exclude)),
        notes=(*features.corpus.notes, *remarks),
        output=output,
    )
