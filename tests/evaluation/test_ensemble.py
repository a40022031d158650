import json
from collections.abc import Callable
from pathlib import Path

import pytest

import serfast
from serfast import FeatureStore, Recognizer, Result
from serfast.evaluation import Recipe, annotation_options, study_attention

QUICK = {"n_units": 8, "n_epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "progress": False}


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=3, n_utterances=8)


def test_members_differ_in_seeds_that_no_other_ensemble_has():
    ensembles = [Recipe.from_options(seed=seed, n_models=3, pooling="eq8") for seed in range(3)]
    seeds = [member.training.seed for ensemble in ensembles for member in ensemble.members]
    assert seeds == list(range(9))
    assert {(member.n_models, member.model.pooling) for member in ensembles[0].members} == {(1, "eq8")}
    assert Recipe().members == (Recipe(),)


@pytest.mark.parametrize("n_models", [0, 2.0, True])
def test_a_wrong_number_is_named(n_models: object):
    with pytest.raises((TypeError, ValueError), match="n_models must be"):
        Recipe.from_options(n_models=n_models)


def test_seeds_out_of_range_are_named():
    with pytest.raises(ValueError, match=f"seed must be below {2**63 // 3} with n_models 3, got {2**62}"):
        Recipe.from_options(n_models=3, seed=2**62)


@pytest.mark.parametrize("scheme", ["joint", "greedy"])
def test_an_ensemble_answers_with_the_mean_of_its_members(store: FeatureStore, tmp_path: Path, scheme: str):
    options = {**QUICK, "scheme": scheme}
    ensemble = serfast.cross_validate(store, output=tmp_path / "run", n_models=2, seed=1, **options)
    alone = [
        serfast.cross_validate(store, output=tmp_path / f"seed-{seed}", seed=seed, **options).predictions
        for seed in (2, 3)
    ]
    assert [fold.n_epochs for fold in ensemble.folds] == [2 * QUICK["n_epochs"]] * 3
    for found, *members in zip(ensemble.predictions, *alone, strict=True):
        assert {found.key} == {member.key for member in members}
        for emotion, probability in found.probabilities.items():
            mean = sum(member.probabilities[emotion] for member in members) / 2
            assert probability == pytest.approx(mean, abs=1e-6)
    assert "2 models a fold, alike but for seeds: their probabilities are averaged" in ensemble.notes
    together = serfast.cross_validate(
        store, output=tmp_path / "together", n_models=2, seed=1, side_by_side=True, **options
    )
    for one, other in zip(ensemble.predictions, together.predictions, strict=True):
        assert (one.key, one.fold) == (other.key, other.fold)
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-3)


def test_a_saved_ensemble_answers_and_is_studied_as_it_did(tmp_path: Path):
    serfast.corpora.synthetic.generate(tmp_path / "corpus", n_speakers=4, n_utterances=4)
    corpus = serfast.load_corpus("synthetic", tmp_path / "corpus")
    result = serfast.cross_validate(corpus, output=tmp_path / "run", n_models=2, **QUICK)
    fold = result.folds[0].name
    model = Recognizer.load(tmp_path / "run" / "folds" / fold)
    recordings = {utterance.key: utterance.path for utterance in corpus.utterances}
    for row in (row for row in result.predictions if row.fold == fold):
        (answer,) = model.predict([recordings[row.key]])
        assert answer.probabilities == pytest.approx(row.probabilities, abs=1e-6)
        assert answer.attention_weights.sum() == pytest.approx(1, abs=1e-5)
    features = serfast.extract_corpus(corpus, tmp_path / "features")
    annotations = serfast.extract_corpus(corpus, tmp_path / "annotations", annotation_options(features.options))
    study = study_attention(result, features, annotations)
    assert len(study.utterances) == len(result.predictions)


def test_a_stopped_ensemble_trains_no_epoch_twice(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {**QUICK, "n_models": 2}
    whole = serfast.cross_validate(store, output=tmp_path / "whole", **options)
    n_epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == 3:  # the first epoch of the second model
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("serfast.evaluation.fold_reports.FoldReport.epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            serfast.cross_validate(store, output=tmp_path / "run", **options)
    n_epochs = 10
    with monkeypatch.context() as patch:
        patch.setattr("serfast.evaluation.fold_reports.FoldReport.epoch", interrupt)
        resumed = serfast.cross_validate(store, output=tmp_path / "run", **options)
    assert n_epochs - 10 == 3 * 2 * QUICK["n_epochs"] - 3
    assert [row.probabilities for row in resumed.predictions] == [row.probabilities for row in whole.predictions]
    assert Result.load(tmp_path / "run") == resumed
    lines = [path.read_text().splitlines() for path in (tmp_path / "run").rglob("metrics.jsonl")]
    assert [[json.loads(line)["epoch"] for line in own] for own in lines] == [[1, 2]] * 6


def test_folds_choose_how_many_models(store: FeatureStore, tmp_path: Path):
    result = serfast.cross_validate(store, output=tmp_path / "run", n_models=[1, 2], **QUICK)
    for fold in result.folds:
        folder = tmp_path / "run" / "folds" / fold.name
        chosen = folder / "candidates" / f"n_models-{fold.choices['n_models']}" / "model.safetensors"
        assert (folder / "model.safetensors").read_bytes() == chosen.read_bytes()
    assert not any("models a fold" in note for note in result.notes)


def test_progress_counts_the_epochs_of_all_models(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "serfast.evaluation.fold_reports.FoldReport.epoch",
        lambda report, record: told.append((record.epoch, record.n_epochs)),
    )
    serfast.train(store, output=tmp_path / "run", n_models=3, **QUICK)
    assert told == [(epoch, 3 * QUICK["n_epochs"]) for epoch in range(1, 3 * QUICK["n_epochs"] + 1)]
