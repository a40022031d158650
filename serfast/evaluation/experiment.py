"""The main job: train and evaluate models on a corpus, in a run folder that can be stopped and resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from serfast.checks import require
from serfast.corpora import Corpus
from serfast.evaluation.corpus_features import corpus_features, without_excluded
from serfast.evaluation.progress import Progress
from serfast.evaluation.protocol import SINGLE, lay_folds, make_protocol
from serfast.evaluation.recipe_choice import recipe_of
from serfast.evaluation.results import Result
from serfast.evaluation.runs import SystemRun, run_systems
from serfast.evaluation.side_by_side import goes_side_by_side
from serfast.features import FeatureStore
from serfast.ops import resolve_device
from serfast.training import crew, launched

__all__ = ["cross_validate", "train"]


def train(
    corpus: Corpus | FeatureStore,
    *,
    output: str | Path,
    store: str | Path | None = None,
    exclude: Sequence[str] = (),
    device: str = "auto",
    progress: bool = True,
    **options: Any,
) -> Result:
    """Train one model; every fifth speaker validates it and trains nothing.

    The scores are those of the validation part, which also selected the epoch: they flatter. For scores of unseen
    speakers use :func:`cross_validate`.

    Args:
        corpus: a corpus whose recordings exist, or a feature store that holds its features.
        output: folder of the run. Called again with the same arguments, a stopped run goes on where it stopped and a
            finished one is read back.
        store: folder of the feature store; one in the user's cache when None.
        exclude: keys of utterances to leave out, such as broken recordings.
        device: "auto", "cpu" or "cuda".
        progress: print where the work stands to standard error.
        **options: ``recipe``, a name in :data:`serfast.evaluation.RECIPES`, and fields of FeatureOptions, ModelOptions
            and TrainingOptions, such as ``pooling="eq9"``, which change what the recipe says; ``n_models=3`` averages
            the probabilities of three models, alike but for their seeds. Of a list, such as ``n_units=[64, 128, 256]``,
            the validation part of each fold chooses one; the result names the choices.

    Raises:
        ValueError: if an option, the corpus or the folder does not fit, or recordings are broken and not excluded.
        CorpusError: if data on disk break a rule.
    """
    return _experiment(
        corpus,
        SINGLE,
        options,
        output=Path(output),
        store=store,
        exclude=exclude,
        device=resolve_device(device),
        jobs=None,
        side_by_side=False,
        progress=Progress(progress),
    )


def cross_validate(
    corpus: Corpus | FeatureStore,
    *,
    output: str | Path,
    protocol: str = "leave_one_speaker_out",
    store: str | Path | None = None,
    exclude: Sequence[str] = (),
    device: str = "auto",
    jobs: int | None = None,
    side_by_side: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Train and test one model per fold of ``protocol``; the epoch is selected on the fold's validation part.

    Each fold has its own folder ``folds/<name>`` in ``output``, which :meth:`serfast.Recognizer.load` reads. Arguments
    and errors are those of :func:`train`, and ``jobs``: as many folds at a time, at least 1, each in a process of its
    own on this machine. The processes share the threads that torch may use in this one, and there are no more of them
    than folds and processor cores. When None the folds go to where ``joblib.parallel_config`` sends them, such as a
    cluster, else one after another in this process. A fold gets the same bits wherever it runs with as many threads on
    a like processor. An error in a fold names it.

    ``side_by_side`` trains all folds in the same steps of this process instead, encoders first and heads after them
    where the scheme is greedy. It is meant for a GPU that one fold leaves idle, where it is what None means unless the
    folds go to other processes or options are chosen from lists; it has not been measured on one. On the CPU ``jobs``
    is faster. A fold gets the same weights but for rounding and, on a GPU, for the numbers that dropout between layers
    and before the decoder draws.

    Source of protocol "paper": Huang and Narayanan (2016), section 4.
    """
    return _experiment(
        corpus,
        protocol,
        options,
        output=Path(output),
        store=store,
        exclude=exclude,
        device=resolve_device(device),
        jobs=jobs,
        side_by_side=side_by_side,
        progress=Progress(progress),
    )


def _experiment(
    corpus: Corpus | FeatureStore,
    protocol_name: str,
    options: dict[str, Any],
    *,
    output: Path,
    store: str | Path | None,
    exclude: Sequence[str],
    device: torch.device,
    jobs: int | None,
    side_by_side: bool | None,
    progress: Progress,
) -> Result:
    if launched().size > 1:
        require("jobs", "be None under torchrun", jobs, jobs is None)
        require("side_by_side", "be False under torchrun", side_by_side, not side_by_side)
    with crew() as leads:
        if not leads:
            return Result.load(output)
        recipe = recipe_of(**options)
        can = recipe.fit_side_by_side is not None and launched().size == 1
        together = goes_side_by_side(side_by_side, device, jobs=jobs, can=can)
        if isinstance(corpus, Corpus):
            lay_folds(protocol_name, corpus)  # what does not fit is said before hours of extraction, not after
        features = corpus_features(corpus, recipe.features, store=store, progress=progress)
        features = without_excluded(features, exclude, progress=progress)
        protocol = make_protocol(protocol_name, features)
        (result,) = run_systems(
            [SystemRun(recipe, output, output / "base")],
            features,
            protocol,
            exclude=exclude,
            device=device,
            jobs=jobs,
            side_by_side=together,
            progress=progress,
            remarks=recipe.remarks(features.corpus.name),
        )
        return result
