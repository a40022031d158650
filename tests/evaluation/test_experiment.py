import csv
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

import serfast
from serfast import FeatureStore, Recognizer, Result
from serfast.evaluation.protocol import make_protocol

QUICK = {"n_units": 8, "n_layers": 1, "n_epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "progress": False}


def test_cross_validation_reports_what_its_predictions_say(tiny_store: FeatureStore, tmp_path: Path):
    result = serfast.cross_validate(tiny_store, output=tmp_path / "run", **QUICK)
    with (tmp_path / "run" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["key"] for row in rows) == sorted(item.key for item in tiny_store.corpus.utterances)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    for name, found, chosen in [
        ("pooled", stored["pooled"], rows),
        *[(fold["name"], fold, [row for row in rows if row["fold"] == fold["name"]]) for fold in stored["folds"]],
    ]:
        truth, predicted = [row["emotion"] for row in chosen], [row["predicted"] for row in chosen]
        assert found["ua"] == pytest.approx(balanced_accuracy_score(truth, predicted)), name
        assert found["wa"] == pytest.approx(accuracy_score(truth, predicted)), name
        assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro")), name
    assert result.pooled.ua == stored["pooled"]["ua"]
    assert set(result.pooled.intervals) == {"ua", "wa", "macro_f1"}
    assert [fold.name for fold in result.folds] == [f"speaker_s{number}" for number in range(6)]
    for row in rows:
        assert row["fold"] == f"speaker_{row['speaker']}"
        assert sum(float(row[f"p_{emotion}"]) for emotion in result.emotions) == pytest.approx(1)
        assert max(result.emotions, key=lambda emotion: float(row[f"p_{emotion}"])) == row["predicted"]


def test_a_separable_corpus_is_learned_and_permuted_labels_are_not(
    make_store: Callable[..., FeatureStore], tmp_path: Path
):
    options = {**QUICK, "n_epochs": 5}
    clear = make_store(tmp_path / "clear", separation=1.5, n_utterances=15)
    assert serfast.cross_validate(clear, output=tmp_path / "a", **options).pooled.ua > 0.9
    empty = make_store(tmp_path / "empty", separation=0.0, n_utterances=15)
    interval = serfast.cross_validate(empty, output=tmp_path / "b", **options).pooled.intervals["ua"]
    assert interval.low < 1 / 3 < interval.high


def test_a_finished_run_is_read_back_and_not_trained_again(tiny_store: FeatureStore, tmp_path: Path):
    first = serfast.cross_validate(tiny_store, output=tmp_path / "run", **QUICK)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
    assert len(stamps) == 6
    second = serfast.cross_validate(tiny_store, output=tmp_path / "run", **QUICK)
    assert second == first == Result.load(tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")} == stamps


def test_an_interrupted_cross_validation_goes_on_to_the_same_result(
    tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = serfast.cross_validate(tiny_store, output=tmp_path / "whole", **QUICK)
    with monkeypatch.context() as patch:
        patch.setattr("serfast.evaluation.progress.Progress.epoch", _interrupt_at_epoch(9))
        with pytest.raises(KeyboardInterrupt):
            serfast.cross_validate(tiny_store, output=tmp_path / "stopped", **QUICK)
    assert not (tmp_path / "stopped" / "result.json").exists()
    resumed = serfast.cross_validate(tiny_store, output=tmp_path / "stopped", **QUICK)
    assert resumed.predictions == whole.predictions


def _interrupt_at_epoch(count: int) -> Callable[..., None]:
    calls = []

    def epoch(*_: object, **__: object) -> None:
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt

    return epoch


def test_a_folder_belongs_to_one_recipe(tiny_store: FeatureStore, tmp_path: Path):
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    with pytest.raises(ValueError, match="run of the same recipe, got one with n_units 8: name another folder"):
        serfast.train(tiny_store, output=tmp_path / "run", **{**QUICK, "n_units": 9})
    with pytest.raises(ValueError, match="got one with protocol 'single'"):
        serfast.cross_validate(tiny_store, output=tmp_path / "run", **QUICK)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="must be an empty folder or hold a run"):
        serfast.train(tiny_store, output=tmp_path / "other", **QUICK)


def test_a_folder_in_use_is_refused(tiny_store: FeatureStore, tmp_path: Path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(ValueError, match="another process trains in"):
        serfast.train(tiny_store, output=tmp_path / "run", **QUICK)


def test_training_reports_the_validation_part_as_such(tiny_store: FeatureStore, tmp_path: Path):
    result = serfast.train(tiny_store, output=tmp_path / "run", pooling="mean", **QUICK)
    assert (result.protocol, result.part) == ("single", "validation")
    assert {row.speaker for row in result.predictions} == {"s4"}
    assert result.pooled.intervals == {}
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert splits["digest"] == result.splits_digest
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_fold_is_loaded_as_a_recognizer_and_answers_as_it_did(tiny_store: FeatureStore, tmp_path: Path):
    result = serfast.cross_validate(tiny_store, output=tmp_path / "run", **QUICK)
    with pytest.raises(serfast.CorpusError, match="name one of its folds: speaker_s0, speaker_s1"):
        Recognizer.load(tmp_path / "run")
    recognizer = Recognizer.load(tmp_path / "run" / "folds" / "speaker_s3")
    rows = {row.key: row for row in result.predictions if row.fold == "speaker_s3"}
    indices = [index for index, item in enumerate(tiny_store.corpus.utterances) if item.speaker == "s3"]
    for batch_size in (1, 4):
        answers = recognizer.answer_store(tiny_store, indices, batch_size=batch_size)
        for index, logits in zip(indices, answers.logits, strict=True):
            exponentials = np.exp(logits - logits.max())
            expected = list(rows[tiny_store.corpus.utterances[index].key].probabilities.values())
            assert exponentials / exponentials.sum() == pytest.approx(expected, abs=1e-5)


def test_broken_recordings_stop_training_until_they_are_excluded(tiny_store: FeatureStore, tmp_path: Path):
    keys = [item.key for item in tiny_store.corpus.utterances]
    broken = tiny_store.restrict(range(1, len(keys)))
    broken.broken[keys[0]] = "s0_0.wav must not be empty, got 0 samples"
    with pytest.raises(ValueError, match=r"exclude must name each recording .*\n  s0_0: s0_0.wav must not be empty"):
        serfast.train(broken, output=tmp_path / "run", **QUICK)
    result = serfast.cross_validate(broken, output=tmp_path / "run", exclude=[keys[0], keys[5]], **QUICK)
    assert {row.key for row in result.predictions} == set(keys) - {keys[0], keys[5]}
    with pytest.raises(ValueError, match="exclude must hold keys of utterances, got nobody"):
        serfast.train(tiny_store, output=tmp_path / "other", exclude=["nobody"], **QUICK)


def test_a_recording_in_two_parts_is_refused(make_store: Callable[..., FeatureStore], tmp_path: Path):
    store = make_store(tmp_path / "store")
    sources = list(store.sources)
    sources[0] = sources[-1]
    leaking = FeatureStore(
        **{**{name: value for name, value in vars(store).items() if name != "rows"}, "sources": tuple(sources)}
    )
    with pytest.raises(ValueError, match="must not share speakers or recordings, got recording s0_0 = s5_8 in"):
        make_protocol("leave_one_speaker_out", leaking)


def test_splits_name_the_recordings_exactly(tiny_store: FeatureStore):
    whole = make_protocol("leave_one_speaker_out", tiny_store)
    assert whole.digest == make_protocol("leave_one_speaker_out", tiny_store).digest
    assert whole.digest != make_protocol("paper", tiny_store).digest
    fewer = make_protocol("leave_one_speaker_out", tiny_store.restrict(range(1, len(tiny_store.lengths))))
    assert whole.digest != fewer.digest


def test_unknown_names_are_listed(tiny_store: FeatureStore, tmp_path: Path):
    with pytest.raises(ValueError, match="protocol must be one of .*leave_one_speaker_out.*, got 'loso'"):
        serfast.cross_validate(tiny_store, protocol="loso", output=tmp_path / "run", **QUICK)
    with pytest.raises(TypeError, match="options must be among .*learning_rate.*, got lr"):
        serfast.train(tiny_store, output=tmp_path / "run", lr=0.1, **QUICK)
    with pytest.raises(ValueError, match="options must not say how a feature store is extracted, got hop_ms"):
        serfast.train(tiny_store, output=tmp_path / "run", hop_ms=5, **QUICK)


def test_stored_features_train_without_the_optional_libraries(tiny_store: FeatureStore, tmp_path: Path):
    program = textwrap.dedent(f"""
        import sys
        for name in ("soundfile", "soxr", "librosa", "typer", "sklearn", "matplotlib"):
            sys.modules[name] = None
        import serfast
        store = serfast.FeatureStore.open({str(tiny_store.path)!r})
        print(serfast.train(store, output={str(tmp_path / "run")!r}, **{QUICK!r}).pooled.ua)
    """)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 <= float(run.stdout) <= 1
