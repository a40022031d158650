import json
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
import torch
from joblib.parallel import SequentialBackend

import serfast
from serfast import FeatureStore, Recognizer, Result
from serfast.evaluation.progress import Progress
from serfast.evaluation.protocol import make_protocol
from serfast.evaluation.rivals import FunctionalsSvm
from serfast.evaluation.runs import SystemRun, run_systems
from serfast.evaluation.side_by_side import goes_side_by_side

QUICK = {"n_units": 8, "n_epochs": 3, "batch_size": 6, "encoder_dropout": 0.2, "progress": False}


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=4, n_utterances=12)


def seconds_of_epochs(run: Path, fold: str) -> float:
    """What the epochs of all stages of a fold took, its base's included."""
    lines = [line for path in run.glob(f"**/folds/{fold}/**/metrics.jsonl") for line in path.read_text().splitlines()]
    return sum(json.loads(line)["seconds"] for line in lines)


@pytest.mark.parametrize("scheme", ["joint", "greedy", "one_by_one"])
def test_answers_are_those_of_folds_one_after_another(store: FeatureStore, tmp_path: Path, scheme: str):
    alone = serfast.cross_validate(store, output=tmp_path / "alone", scheme=scheme, **QUICK)
    together = serfast.cross_validate(store, output=tmp_path / "together", side_by_side=True, scheme=scheme, **QUICK)
    assert together == Result.load(tmp_path / "together")
    for one, other in zip(alone.predictions, together.predictions, strict=True):
        assert (one.key, one.fold) == (other.key, other.fold)
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-3)
        ranked = sorted(one.probabilities.values())
        assert one.predicted == other.predicted or ranked[-1] - ranked[-2] < 1e-3
    for result in (alone, together):
        for fold in result.folds:
            assert fold.seconds == pytest.approx(seconds_of_epochs(result.output, fold.name))
    for fold in together.folds:
        assert Recognizer.load(tmp_path / "together" / "folds" / fold.name).emotions == store.corpus.emotions
    assert not list((tmp_path / "together").rglob("checkpoint.safetensors"))


@pytest.mark.parametrize(("scheme", "n_before"), [("joint", 0), ("greedy", 4 * QUICK["n_epochs"])])
def test_a_stopped_run_goes_on_and_may_change_its_way(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, n_before: int
):
    options = {**QUICK, "scheme": scheme}
    whole = serfast.cross_validate(store, output=tmp_path / "whole", side_by_side=True, **options)
    n_epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == n_before + 6:
            raise KeyboardInterrupt

    for side_by_side in (True, False):
        output, n_epochs = tmp_path / str(side_by_side), 0
        with monkeypatch.context() as patch:
            patch.setattr("serfast.evaluation.fold_reports.FoldReport.epoch", interrupt)
            with pytest.raises(KeyboardInterrupt):
                serfast.cross_validate(store, output=output, side_by_side=True, **options)
        lines = [path.read_text().splitlines() for path in (output / "folds").rglob("metrics.jsonl")]
        assert sum(map(len, lines)) == 6
        assert {json.loads(line)["epoch"] for own in lines for line in own} == {1, 2}
        resumed = serfast.cross_validate(store, output=output, side_by_side=side_by_side, **options)
        for one, other in zip(whole.predictions, resumed.predictions, strict=True):
            assert other.probabilities == pytest.approx(one.probabilities, abs=1e-3)


class ClusterBackend(SequentialBackend):
    """Takes all its workers when nobody says how many, as those of clusters do."""

    default_n_jobs = -1

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 7 if n_jobs == -1 else n_jobs


def test_folds_go_side_by_side_on_a_gpu_unless_they_are_sent_elsewhere():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert goes_side_by_side(None, gpu, jobs=None)
    assert not goes_side_by_side(None, cpu, jobs=None)
    assert not goes_side_by_side(None, gpu, jobs=2)
    assert not goes_side_by_side(None, gpu, jobs=None, can=False)
    assert goes_side_by_side(True, cpu, jobs=None, can=False)
    assert not goes_side_by_side(False, gpu, jobs=None)
    for n_jobs, expected in ((1, True), (2, False), (-1, False)):
        with joblib.parallel_config("loky", n_jobs=n_jobs):
            assert goes_side_by_side(None, gpu, jobs=None) == expected
    with joblib.parallel_config(ClusterBackend()):
        assert not goes_side_by_side(None, gpu, jobs=None)


@pytest.mark.parametrize("scheme", ["joint", "greedy"])
def test_many_folds_go_in_parts(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str):
    options = {**QUICK, "scheme": scheme, "side_by_side": True}
    whole = serfast.cross_validate(store, output=tmp_path / "whole", **options)
    monkeypatch.setattr("serfast.evaluation.side_by_side._MOST", 3)
    parts: list[int] = []
    way = serfast.evaluation.recipe.train_side_by_side
    monkeypatch.setattr(
        "serfast.evaluation.recipe.train_side_by_side",
        lambda store, folds, *rest, **more: parts.append(len(folds)) or way(store, folds, *rest, **more),
    )
    found = serfast.cross_validate(store, output=tmp_path / "parts", **options)
    assert parts == [2] * (4 if scheme == "greedy" else 2)
    for one, other in zip(whole.predictions, found.predictions, strict=True):
        assert (one.key, one.fold) == (other.key, other.fold)
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-3)


def test_the_time_of_a_step_is_shared_out(store: FeatureStore, tmp_path: Path):
    started = time.monotonic()
    result = serfast.cross_validate(store, output=tmp_path / "run", side_by_side=True, **QUICK)
    assert 0 < result.training_seconds < time.monotonic() - started


def test_other_systems_are_refused(store: FeatureStore, tmp_path: Path):
    with pytest.raises(ValueError, match="side_by_side must be False for this system, got True for FunctionalsSvm"):
        run_systems(
            [SystemRun(FunctionalsSvm(), tmp_path / "run", tmp_path / "base")],
            store,
            make_protocol("paper", store),
            exclude=(),
            device=torch.device("cpu"),
            progress=Progress(False),
            side_by_side=True,
        )
