"""Systems alike but for their seeds, on one fold, whose answers are averaged."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from serfast.evaluation.fold import label_answers, run_fold
from serfast.evaluation.results import FoldResult, score_predictions
from serfast.evaluation.side_by_side import learn_side_by_side
from serfast.evaluation.system import FoldContext, FoldOutcome, System
from serfast.models import EmotionClassifier, EmotionEnsemble
from serfast.recognizer import Recognizer
from serfast.training import EpochRecord

__all__ = ["fit_ensemble", "fit_ensembles_side_by_side"]


def fit_ensemble(members: Sequence[System], context: FoldContext, *, batch_size: int) -> FoldOutcome:
    """Train each member on the fold, in a folder of its own; save and answer with the mean of their recognizers."""
    contexts = _contexts(members, context)
    found = [run_fold(member, own)[0] for member, own in zip(members, contexts, strict=True)]
    return _outcome(found, contexts, context, batch_size)


def fit_ensembles_side_by_side(
    ensembles: Sequence[tuple[Sequence[System], FoldContext]], *, batch_size: int
) -> list[FoldOutcome]:
    """As :func:`fit_ensemble` of each of several ensembles; the first members in the same steps, then the second."""
    contexts = [_contexts(members, context) for members, context in ensembles]
    found = [
        learn_side_by_side(
            [(members[place], own[place]) for (members, _), own in zip(ensembles, contexts, strict=True)]
        )
        for place in range(len(contexts[0]))
    ]
    return [
        _outcome([of_member[place][0] for of_member in found], contexts[place], context, batch_size)
        for place, (_, context) in enumerate(ensembles)
    ]


def _contexts(members: Sequence[System], context: FoldContext) -> list[FoldContext]:
    contexts = []
    for place in range(len(members)):
        folder, told = context.folder / "models" / str(place), partial(_tell, context, place, len(members))
        contexts.append(replace(context, folder=folder, base_folder=folder / "base", on_epoch=told))
    return contexts


def _tell(context: FoldContext, place: int, n_members: int, record: EpochRecord) -> None:
    # The epochs of a stage are counted over all members
    before, n_epochs = place * record.n_epochs, n_members * record.n_epochs
    context.on_epoch(replace(record, epoch=before + record.epoch, n_epochs=n_epochs))


def _outcome(
    found: Sequence[FoldResult], contexts: Sequence[FoldContext], context: FoldContext, batch_size: int
) -> FoldOutcome:
    recognizers = [Recognizer.load(own.folder, device=str(context.device)) for own in contexts]
    classifiers = cast("list[EmotionClassifier]", [own.model for own in recognizers])
    ensemble = replace(recognizers[0], model=EmotionEnsemble(classifiers).eval())
    ensemble.save(context.folder)
    answers = ensemble.answer_store(context.store, context.scored, batch_size=batch_size)
    return FoldOutcome(
        answers.probabilities,
        n_epochs=sum(fold.n_epochs for fold in found),
        best_epoch=0,
        seconds=sum(fold.seconds for fold in found),
        validation_ua=_validation_ua(ensemble, context, batch_size),
    )


def _validation_ua(ensemble: Recognizer, context: FoldContext, batch_size: int) -> float:
    part, emotions = context.fold.validation, context.store.corpus.emotions
    answers = ensemble.answer_store(context.store, part, batch_size=batch_size)
    rows = label_answers(answers.probabilities, emotions, context.store, part, fold=context.fold.name)
    return score_predictions(rows, emotions).ua
