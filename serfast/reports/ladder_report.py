"""The paper, whole: its ladder on one corpus, its table, its figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from serfast.corpora import Corpus
from serfast.evaluation import ComparedRow, LadderRow, compare_rows
from serfast.evaluation.attention_study import (
    AttentionStudy,
    annotation_options,
    attention_frames,
    study_attention,
)
from serfast.evaluation.ladder import BASELINE, LadderOptions, ladder_features, run_ladder
from serfast.evaluation.progress import Progress
from serfast.evaluation.side_by_side import goes_side_by_side
from serfast.features import FeatureOptions, FeatureStore
from serfast.ops import resolve_device
from serfast.reports.figures import draw_correlations, draw_frames, draw_positions, draw_voicing, save_figure
from serfast.reports.paper_table import write_paper_table

__all__ = ["paper"]


def paper(
    corpus: Corpus,
    *,
    output: str | Path,
    protocol: str = "paper",
    rows: Sequence[str] | None = None,
    seeds: int = 1,
    store: str | Path | None = None,
    exclude: Sequence[str] = (),
    device: str = "auto",
    jobs: int | None = None,
    side_by_side: bool | None = None,
    utterances: Sequence[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[ComparedRow, ...]:
    """Run every system that the paper compares or builds on, and write its table and figures into ``output``.

    ``table.md``, ``table.csv`` and ``table.tex`` are table 1. For each row with attention, ``attention/ROW`` holds
    figure 3 of some utterances (``/`` of a key is ``%2F`` in the file's name), figure 4, attention by voicing and by
    position, and ``correlations.csv`` behind them. A run that was stopped goes on where it stopped; what is finished is
    read back. Systems that build on the same encoder share it.

    Args:
        corpus: a corpus whose recordings exist.
        output: folder of the table, the figures and, in ``seed-N/ROW``, of every run.
        protocol: as for :func:`serfast.cross_validate`.
        rows: names of the rows to run; all when None. The baseline, and rows that others build on, run too.
        seeds: runs of every row, with seeds 0, 1 and so on.
        store: folder of the feature stores, one for each kind; in the user's cache when None.
        exclude: keys of utterances to leave out, such as broken recordings.
        device: "auto", "cpu" or "cuda".
        jobs: as for :func:`serfast.cross_validate`.
        side_by_side: as for :func:`serfast.cross_validate`, of the neural rivals too, and the folds of all seeds at
            once; those of an SVM, which has no steps, follow one another.
        utterances: keys of those that figure 3 is drawn for; one of each emotion when None.
        progress: print where the work stands to standard error.
        **options: fields of :class:`serfast.evaluation.LadderOptions`.

    Returns:
        The rows of the table, each with its scores and its test against the baseline.

    Raises:
        TypeError: if ``corpus`` is no corpus, an option is not known, or ``utterances`` is a single string.
        ValueError: as for :func:`serfast.cross_validate`, or if ``utterances`` names none of the corpus.
        CorpusError: if data on disk break a rule.

    Source: Huang and Narayanan (2016), table 1, figures 3 and 4.
    """
    output, shown, used = Path(output), Progress(progress), resolve_device(device)
    place = None if store is None else Path(store)
    if not isinstance(corpus, Corpus):
        raise TypeError(
            f"corpus must be a Corpus, from which several kinds of features come, got {type(corpus).__name__}"
        )
    sizes = LadderOptions.from_options(**options)
    _check_drawn(corpus, utterances or (), exclude)
    found = run_ladder(
        corpus,
        sizes,
        output=output,
        protocol=protocol,
        rungs=rows,
        n_seeds=seeds,
        store=place,
        exclude=exclude,
        jobs=jobs,
        side_by_side=goes_side_by_side(side_by_side, used, jobs=jobs),
        device=used,
        progress=shown,
    )
    compared = compare_rows(found, baseline=BASELINE)
    write_paper_table(compared, output)
    attentive = [row for row in found if row.scoring]
    if attentive:
        own = FeatureOptions()
        features, annotations = (
            ladder_features(corpus, kind, store=place, exclude=exclude, progress=shown)
            for kind in (own, annotation_options(own))
        )
        for row in attentive:
            shown.say(f"attention of {row.name}")
            _draw_attention(row, features, annotations, folder=output / "attention" / row.name, keys=utterances)
    return compared


def _check_drawn(corpus: Corpus, utterances: Sequence[str], exclude: Sequence[str]) -> None:
    if isinstance(utterances, str):
        raise TypeError(f"utterances must be a list of keys, got the single string {utterances!r}")
    drawable = {utterance.key for utterance in corpus.utterances} - set(exclude)
    unknown = sorted(set(utterances) - drawable)
    if unknown:
        raise ValueError(f"utterances must hold keys of utterances that are not excluded, got {', '.join(unknown)}")


def _draw_attention(
    row: LadderRow, features: FeatureStore, annotations: FeatureStore, *, folder: Path, keys: Sequence[str] | None
) -> None:
    """Figures 3 and 4 of the row's first seed, what the paper could not show, and the numbers behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    result = row.results[0]
    study = study_attention(result, features, annotations, device="cpu")
    study.write_csv(folder / "correlations.csv")
    for name, draw in (("figure-4", draw_correlations), ("voicing", draw_voicing), ("position", draw_positions)):
        save_figure(draw(study), folder / name)
    chosen = _typical(study) if keys is None else keys
    for frames in attention_frames(result, features, annotations, keys=chosen, device="cpu"):
        name = quote(frames.prediction.key.removesuffix(".wav"), safe=" #")  # a/1.wav and b/1.wav are two
        save_figure(draw_frames(frames), folder / f"figure-3-{name}")


def _typical(study: AttentionStudy) -> list[str]:
    """Of each emotion the utterance of the most usual length, if possible one that was answered right."""
    chosen = []
    for emotion in study.emotions:
        own = [item for item in study.utterances if item.prediction.emotion == emotion]
        right = [item for item in own if item.prediction.predicted == emotion] or own
        if right:
            median = np.median([item.n_frames for item in right])
            chosen.append(min(right, key=lambda item: abs(item.n_frames - median)).prediction.key)
    return chosen
