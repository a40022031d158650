import csv
import dataclasses
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

import serfast
from serfast import FeatureStore, Recognizer, Result, Utterance
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


def test_a_separable_corpus_is_learned_and_one_without_differences_is_not(
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
        patch.setattr("serfast.evaluation.fold_reports.FoldReport.epoch", _interrupt_at_epoch(9))
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
            exponentials = np.exp(logits.astype(np.float64) - logits.max())
            expected = list(rows[tiny_store.corpus.utterances[index].key].probabilities.values())
            assert (exponentials / exponentials.sum()).tolist() == expected


def test_broken_recordings_stop_training_until_they_are_excluded(tiny_store: FeatureStore, tmp_path: Path):
    keys = [item.key for item in tiny_store.corpus.utterances]
    reasons = {keys[0]: "s0_0.wav must not be empty, got 0 samples"}
    broken = dataclasses.replace(tiny_store.restrict(range(1, len(keys))), broken=reasons)
    with pytest.raises(
        ValueError, match=r"exclude must name each recording .* got none of s0_0 \(s0_0.wav must not be"
    ):
        serfast.train(broken, output=tmp_path / "run", **QUICK)
    result = serfast.cross_validate(broken, output=tmp_path / "run", exclude=[keys[0], keys[5]], **QUICK)
    assert {row.key for row in result.predictions} == set(keys) - {keys[0], keys[5]}
    assert result.excluded == tuple(sorted([keys[0], keys[5]]))
    with pytest.raises(ValueError, match=r"got one with exclude \['s0_0', 's0_5'\]"):
        serfast.cross_validate(broken, output=tmp_path / "run", exclude=[keys[0]], **QUICK)
    with pytest.raises(TypeError, match="exclude must be a list of keys, got the single string 's0_0'"):
        serfast.train(tiny_store, output=tmp_path / "other", exclude="s0_0", **QUICK)
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


class KilledError(BaseException):
    pass


def test_a_run_killed_at_any_replacement_of_a_file_goes_on_to_the_same_result(
    make_store: Callable[..., FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = make_store(tmp_path / "store", n_speakers=3, n_utterances=6)
    whole = serfast.cross_validate(store, output=tmp_path / "whole", **QUICK)
    replace, n_done, killed_at, after = Path.replace, 0, 0, False

    def replace_or_die(path: Path, target: Path) -> Path:
        nonlocal n_done
        n_done += 1
        if n_done == killed_at and not after:
            raise KilledError
        replaced = replace(path, target)
        if n_done == killed_at:
            raise KilledError
        return replaced

    monkeypatch.setattr(Path, "replace", replace_or_die)
    for killed_at in range(1, 100):
        finished = False
        for after in (False, True):
            output, n_done = tmp_path / f"{killed_at}{after}", 0
            try:
                serfast.cross_validate(store, output=output, **QUICK)
                finished = True
            except KilledError:
                n_done = 100
            assert serfast.cross_validate(store, output=output, **QUICK).predictions == whole.predictions
            assert not list(output.rglob("checkpoint.safetensors"))
            for metrics in output.rglob("metrics.jsonl"):
                assert len(metrics.read_text().splitlines()) == QUICK["n_epochs"]
        if finished:
            break
    assert killed_at > 15


def relabel(store: FeatureStore, **changes: Callable[[Utterance], str | None]) -> FeatureStore:
    utterances = tuple(
        dataclasses.replace(item, **{name: change(item) for name, change in changes.items()})
        for item in store.corpus.utterances
    )
    return dataclasses.replace(store, corpus=dataclasses.replace(store.corpus, utterances=utterances))


def test_speakers_of_any_name_have_folds_of_their_own(make_store: Callable[..., FeatureStore], tmp_path: Path):
    names = {"s0": "a/b", "s1": "a%2Fb", "s2": "[/red] :smile: ü"}
    store = relabel(make_store(tmp_path / "store", n_speakers=3), speaker=lambda item: names[item.speaker])
    result = serfast.cross_validate(store, output=tmp_path / "run", **QUICK)
    assert len({row.key for row in result.predictions}) == 27
    for fold in (tmp_path / "run" / "folds").iterdir():
        recognizer = Recognizer.load(fold)
        assert recognizer.emotions == store.corpus.emotions
    assert sorted(path.name for path in (tmp_path / "run" / "folds").iterdir()) == [
        "speaker_[%2Fred] :smile: ü",
        "speaker_a%252Fb",
        "speaker_a%2Fb",
    ]


def test_a_protocol_without_a_test_part_reports_validation(tiny_store: FeatureStore, tmp_path: Path):
    split = relabel(tiny_store, split=lambda item: "validation" if item.speaker in ("s0", "s1") else "train")
    result = serfast.cross_validate(split, protocol="fixed", output=tmp_path / "run", **QUICK)
    assert result.part == "validation"


def test_an_emotion_absent_from_a_fold_is_named(tiny_store: FeatureStore, tmp_path: Path):
    kept = [
        index
        for index, item in enumerate(tiny_store.corpus.utterances)
        if (item.speaker, item.emotion) != ("s2", "anger")
    ]
    result = serfast.cross_validate(tiny_store.restrict(kept), output=tmp_path / "run", **QUICK)
    by_name = {fold.name: fold.scores for fold in result.folds}
    assert by_name["speaker_s2"].absent == ("anger",)
    truth = [row.emotion for row in result.predictions if row.speaker == "s2"]
    predicted = [row.predicted for row in result.predictions if row.speaker == "s2"]
    recalls = recall_score(truth, predicted, labels=["neutral", "sadness"], average=None)
    assert by_name["speaker_s2"].ua == pytest.approx(recalls.mean())


def test_a_corpus_of_one_emotion_is_refused(tiny_store: FeatureStore, tmp_path: Path):
    kept = [index for index, item in enumerate(tiny_store.corpus.utterances) if item.emotion == "anger"]
    with pytest.raises(ValueError, match="must train on at least 2 emotions, got anger"):
        serfast.train(tiny_store.restrict(kept), output=tmp_path / "run", **QUICK)


def test_a_run_of_another_version_of_the_features_is_refused(
    tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    monkeypatch.setattr("serfast.features.options.FEATURES_VERSION", -1)
    with pytest.raises(ValueError, match="got one with features_digest"):
        serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    with pytest.raises(serfast.CorpusError, match="must expect features of this version of serfast"):
        Recognizer.load(tmp_path / "run")


@pytest.mark.parametrize("name", ["result.json", "predictions.csv", "recipe.json", "splits.json"])
@pytest.mark.parametrize("content", ["{}", "nonsense"])
def test_damaged_files_of_a_run_are_named(tiny_store: FeatureStore, tmp_path: Path, name: str, content: str):
    serfast.train(tiny_store, output=tmp_path / "run", **QUICK)
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises((serfast.CorpusError, ValueError), match=f"{name} must|run of the same recipe"):
        serfast.train(tiny_store, output=tmp_path / "run", **QUICK)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"class_weights": "no"}, "class_weights must be True or False, got 'no'"),
        ({"n_epochs": 2.5}, "n_epochs must be an integer, got 2.5"),
        ({"n_units": True}, "n_units must be an integer, got True"),
        ({"batch_size": "many"}, "batch_size must be an integer, got 'many'"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"gradient_clip": float("inf")}, "gradient_clip must be finite, got inf"),
        ({"seed": 2**64}, "seed must lie in"),
    ],
)
def test_options_of_another_type_are_refused(tiny_store: FeatureStore, tmp_path: Path, option: dict, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        serfast.train(tiny_store, output=tmp_path / "run", **{**QUICK, **option})
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match="corpus must be a Corpus or a FeatureStore, got str"):
        serfast.train("emodb", output=tmp_path / "run", **QUICK)
