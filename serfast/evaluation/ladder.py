"""The paper's ladder: every system that it compares or builds on, under one protocol.

Source: Huang and Narayanan (2016), sections 2 to 4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from serfast.checks import integer, require
from serfast.corpora import Corpus
from serfast.evaluation.corpus_features import corpus_features, without_excluded
from serfast.evaluation.ladder_rows import LadderRow
from serfast.evaluation.progress import Progress
from serfast.evaluation.protocol import Protocol, lay_folds, make_protocol
from serfast.evaluation.recipe import Recipe
from serfast.evaluation.results import Result
from serfast.evaluation.rivals import FunctionalsSvm, GhoshBottleneck, HanSegments, LeeCtc
from serfast.evaluation.runs import SystemRun, run_systems
from serfast.evaluation.system import System
from serfast.features import FeatureOptions, FeatureStore
from serfast.models import ModelOptions
from serfast.training import TrainingOptions

__all__ = ["BASELINE", "LadderOptions", "Rung", "ladder", "ladder_features", "run_ladder"]

BASELINE = "mean"
"""The rung that the others are tested against."""

_SCORINGS = {"eq8": "eq. 8", "eq9": "eq. 9"}


@dataclass(frozen=True)
class LadderOptions:
    """Sizes and epochs of the ladder's systems; the sizes are the paper's.

    Attributes:
        n_units: LSTM units per direction of all systems but the final model, rivals included.
        n_units_final: those of the final model.
        n_decoder_final: units of the final model's hidden decoder layer.
        pooling_dropout: share of the elements of the scaled vectors that greedy + dropout and the final model drop.
        n_epochs: epochs of a stage at most.
        patience: epochs without a better validation UA after which a stage ends.
    """

    n_units: int = 128
    n_units_final: int = 256
    n_decoder_final: int = 128
    pooling_dropout: float = 0.5
    n_epochs: int = 30
    patience: int = 6

    def __post_init__(self) -> None:
        for name in ("n_units", "n_units_final", "n_decoder_final"):
            require(name, "be at least 1", getattr(self, name), integer(name, getattr(self, name)) >= 1)

    @classmethod
    def from_options(cls, **options: Any) -> "LadderOptions":
        """The defaults, with options changed by name.

        Raises:
            TypeError: if a name is no option.
            ValueError: if a size is below 1.
        """
        known = sorted(option.name for option in fields(cls))
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise TypeError(f"options must be among {', '.join(known)}, got {', '.join(unknown)}")
        return cls(**options)


@dataclass(frozen=True)
class Rung:
    """One system of the ladder. Rungs of one ``title`` differ in ``scoring``: "eq8", "eq9", or "" for no choice."""

    name: str
    title: str
    scoring: str
    system: System


def ladder(options: LadderOptions, seed: int = 0) -> tuple[Rung, ...]:
    """The rungs from the simplest to the final model, then the rivals; every base stands before what builds on it."""
    training = TrainingOptions(n_epochs=options.n_epochs, patience=options.patience, seed=seed)
    greedy = replace(training, scheme="greedy")
    small, large = ModelOptions(n_units=options.n_units), ModelOptions(n_units=options.n_units_final)
    dropped = replace(small, pooling_dropout=options.pooling_dropout)
    final = replace(
        large,
        pooling_dropout=options.pooling_dropout,
        n_decoder=options.n_decoder_final,
        decoder_dropout=options.pooling_dropout,
    )

    def attention(name: str, title: str, model: ModelOptions, training: TrainingOptions) -> Iterator[Rung]:
        for scoring in _SCORINGS:
            yield Rung(f"{name}_{scoring}", title, scoring, _recipe(replace(model, pooling=scoring), training))

    def last(name: str, title: str, direction: str) -> Rung:
        return Rung(name, title, "", _recipe(replace(small, pooling="last", direction=direction), training))

    return (
        last("lstm_last", "LSTM, last state", "forward"),
        last("lstm_last_reversed", "LSTM on reversed input, last state", "reverse"),
        last("blstm_last", "BLSTM, last states", "both"),
        Rung(BASELINE, "BLSTM, mean: baseline", "", _recipe(replace(small, pooling="mean"), training)),
        *attention("attention", "Baseline + attention", small, training),
        *attention("greedy", "Greedy + attention", small, greedy),
        *attention("greedy_dropout", "Greedy + dropout + attention", dropped, greedy),
        Rung("mean_large", "Encoder of the final model, mean", "", _recipe(replace(large, pooling="mean"), training)),
        *attention("final", "Final model", final, greedy),
        Rung("han", "Han et al. 2014: segments, DNN, ELM", "", HanSegments(training=training)),
        Rung("lee", "Lee and Tashev 2015: CTC BLSTM, ELM", "", LeeCtc(n_units=options.n_units, training=training)),
        Rung("ghosh", "Ghosh et al. 2016: bottleneck, BLSTM", "", _bottleneck(options, training)),
        Rung("svm", "SVM on functionals", "", FunctionalsSvm()),
        Rung(
            "svm_speaker", "SVM, each speaker standardised (transductive)", "", FunctionalsSvm(normalisation="speaker")
        ),
    )


def run_ladder(
    corpus: Corpus,
    options: LadderOptions,
    *,
    output: Path,
    protocol: str,
    rungs: Sequence[str] | None,
    n_seeds: int,
    store: Path | None,
    exclude: Sequence[str],
    jobs: int | None,
    side_by_side: bool,
    device: torch.device,
    progress: Progress,
) -> tuple[LadderRow, ...]:
    """Run the rungs named, or all, with seeds 0, 1 and so on; what ``output`` holds finished is read back.

    The baseline, and rungs that others build on, run too. The features of each kind go to their own folder in
    ``store``, or to the user's cache. With ``side_by_side`` all folds of all seeds of a rung are trained in the same
    steps, but for those of the SVMs; without it the seeds follow one another, so that one is finished soon.

    Raises:
        ValueError: if a rung is not known, or as :func:`serfast.cross_validate`.
    """
    require("seeds", "be at least 1", n_seeds, integer("seeds", n_seeds) >= 1)
    require("jobs", "be None with side_by_side", jobs, jobs is None or not side_by_side)
    known = [rung.name for rung in ladder(options)]
    unknown = sorted(set(rungs or ()) - set(known))
    if unknown:
        raise ValueError(f"rows must be among {', '.join(known)}, got {', '.join(unknown)}")
    lay_folds(protocol, corpus)  # what does not fit is said before hours of extraction, not after
    stores: dict[FeatureOptions, tuple[FeatureStore, Protocol]] = {}
    results: dict[str, list[Result]] = {}
    seeds = range(n_seeds)
    for together in [tuple(seeds)] if side_by_side else [(seed,) for seed in seeds]:
        for of_seeds in zip(*(_with_bases(ladder(options, seed), rungs) for seed in together), strict=True):
            system = of_seeds[0].system
            if system.features not in stores:
                features = ladder_features(corpus, system.features, store=store, exclude=exclude, progress=progress)
                stores[system.features] = features, make_protocol(protocol, features)
            progress.say(_announcement(of_seeds[0], together))
            found = run_systems(
                [
                    _run_of(rung, ladder(options, seed), output, seed)
                    for seed, rung in zip(together, of_seeds, strict=True)
                ],
                *stores[system.features],
                exclude=exclude,
                jobs=jobs,
                side_by_side=side_by_side and system.fit_side_by_side is not None,
                device=device,
                progress=progress,
            )
            results.setdefault(of_seeds[0].name, []).extend(found)
    return tuple(
        LadderRow(rung.name, rung.title, rung.scoring, tuple(results[rung.name]))
        for rung in ladder(options)
        if rung.name in results
    )


def _announcement(rung: Rung, seeds: Sequence[int]) -> str:
    title = " ".join(filter(None, [rung.title, _SCORINGS.get(rung.scoring)]))
    return f"{title}, {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"


def _run_of(rung: Rung, rungs: Sequence[Rung], output: Path, seed: int) -> SystemRun:
    folder, bases = output / f"seed-{seed}", [other.name for other in rungs if other.system == rung.system.base]
    return SystemRun(rung.system, folder / rung.name, folder / (bases[0] if bases else "base"), label=f"seed {seed}")


def ladder_features(
    corpus: Corpus, options: FeatureOptions, *, store: Path | None, exclude: Sequence[str], progress: Progress
) -> FeatureStore:
    """The features of one kind that :func:`run_ladder` reads, extracted as far as they are not stored."""
    place = None if store is None else store / options.digest()[:12]
    features = corpus_features(corpus, options, store=place, progress=progress)
    return without_excluded(features, exclude, progress=progress)


def _recipe(model: ModelOptions, training: TrainingOptions) -> Recipe:
    return Recipe(model=model, training=training)


def _bottleneck(options: LadderOptions, training: TrainingOptions) -> GhoshBottleneck:
    usual = GhoshBottleneck()
    most = {name: min(getattr(options, name), getattr(usual.pretraining, name)) for name in ("n_epochs", "patience")}
    model = replace(usual.model, n_units=options.n_units)
    return GhoshBottleneck(pretraining=replace(usual.pretraining, **most), model=model, training=training)


def _with_bases(rungs: Sequence[Rung], names: Sequence[str] | None) -> list[Rung]:
    wanted = [rung for rung in rungs if names is None or rung.name in names or rung.name == BASELINE]
    bases = [rung.system.base for rung in wanted]
    return [rung for rung in rungs if rung in wanted or rung.system in bases]
