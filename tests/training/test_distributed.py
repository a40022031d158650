import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import serfast
from serfast import FeatureStore
from serfast.training.distributed import Ranks

SMALL = {"n_units": 8, "n_layers": 2, "n_epochs": 4, "progress": False}
# Of 39 utterances the last batch holds one, so that the second process has none of it.
WHOLE = {"batch_size": 19, "pooling_dropout": 0.3, "class_weights": True, "label_smoothing": 0.1, "averaging": 0.5}
GREEDY = {"batch_size": 4, "scheme": "greedy", "gradient_clip": 0.1, "schedule": "one_cycle"}


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    uneven = make_store(tmp_path / "store", n_speakers=6, n_utterances=9)
    rare = [index for index, item in enumerate(uneven.corpus.utterances) if item.emotion == "anger"][:6]
    store = uneven.restrict(index for index in range(len(uneven.lengths)) if index not in rare)
    assert sum(item.speaker != "s4" for item in store.corpus.utterances) == 39
    return store


def launch(n_processes: int, program: str, **streams: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    script = Path.cwd() / f"script-{time.monotonic_ns()}.py"
    script.write_text(textwrap.dedent(program))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, script], start_new_session=True, text=True, env=environment, **streams)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in safetensors.torch.load_file(folder / "model.safetensors").items()}


def assert_alike(one: Path, other: Path) -> None:
    for name, expected in weights(one).items():
        np.testing.assert_allclose(weights(other)[name], expected, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n_utterances", [1, 2, 4, 9])
def test_parts_make_up_the_mean_of_the_batch(size: int, n_utterances: int):
    generator = np.random.default_rng(size * n_utterances)
    batch = generator.permutation(100)[:n_utterances]
    losses, weights = generator.standard_normal(100), generator.uniform(0.1, 3, 100)
    means, seen = [], []
    for rank in range(size):
        part, factor = Ranks(rank, size).part(batch, weights[batch])
        assert len(part) > 0
        means.append(factor * np.average(losses[part], weights=weights[part]))
        seen += list(part) if factor else []
    assert sorted(seen) == sorted(batch)
    assert np.mean(means) == pytest.approx(np.average(losses[batch], weights=weights[batch]))


@pytest.mark.usefixtures("processes")
def test_processes_share_the_work_and_train_what_one_trains(store: FeatureStore, tmp_path: Path):
    program = f"""
        import json, os, sys
        from pathlib import Path
        import serfast
        from serfast.training import classification
        rows, augment = 0, classification.augment
        def counted(batch, options):
            global rows
            rows += len(batch.indices)
            return augment(batch, options)
        classification.augment = counted
        whole = serfast.FeatureStore.open({str(store.path)!r})
        keys = {[item.key for item in store.corpus.utterances]!r}
        store = whole.restrict(i for i, item in enumerate(whole.corpus.utterances) if item.key in keys)
        output = Path({str(tmp_path)!r})
        results = [serfast.train(store, output=output / "whole-2", **{ {**SMALL, **WHOLE}!r})]
        rank, first = os.environ["RANK"], rows
        results.append(serfast.train(store, output=output / "greedy-2", **{ {**SMALL, **GREEDY}!r}))
        results.append(serfast.cross_validate(store, protocol="paper", output=output / "paper-2", **{SMALL!r}))
        facts = {{"rows": first, "ua": [result.pooled.ua for result in results]}}
        (output / f"facts-{{rank}}.json").write_text(json.dumps(facts))
    """
    with launch(2, program, stderr=subprocess.PIPE) as process:
        errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    for name, options in (("whole", WHOLE), ("greedy", GREEDY)):
        serfast.train(store, output=tmp_path / f"{name}-1", **SMALL, **options)
        assert_alike(tmp_path / f"{name}-1", tmp_path / f"{name}-2")
        losses = [
            [
                json.loads(line)["loss"]
                for line in (tmp_path / f"{name}-{size}" / "metrics.jsonl").read_text().splitlines()
            ]
            for size in (1, 2)
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    alone = serfast.cross_validate(store, protocol="paper", output=tmp_path / "paper-1", **SMALL)
    for fold in alone.folds:
        assert_alike(*(tmp_path / f"paper-{size}" / "folds" / fold.name for size in (1, 2)))
    facts = [json.loads((tmp_path / f"facts-{rank}.json").read_text()) for rank in (0, 1)]
    assert facts[0]["ua"] == facts[1]["ua"]
    # Of two batches of 19 and one of one in each epoch; what weighs nothing is read, too.
    assert facts[0]["rows"] == 4 * (10 + 10 + 1)
    assert facts[1]["rows"] == 4 * (9 + 9 + 1)


@pytest.mark.usefixtures("processes")
def test_killed_processes_go_on_where_they_stopped(store: FeatureStore, tmp_path: Path):
    options = {**SMALL, "n_epochs": 12, "patience": 12, "batch_size": 7}
    program = f"""
        import serfast
        store = serfast.FeatureStore.open({str(store.path)!r})
        serfast.train(store, output={str(tmp_path / "two")!r}, **{options!r})
    """
    metrics = tmp_path / "two" / "metrics.jsonl"
    with launch(2, program) as process:
        ends = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < ends:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    stopped_at = len(metrics.read_text().splitlines())
    assert 1 <= stopped_at < 12
    with launch(2, program) as process:
        assert process.wait() == 0
    assert len(metrics.read_text().splitlines()) == 12
    serfast.train(FeatureStore.open(store.path), output=tmp_path / "one", **options)
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.usefixtures("processes")
def test_no_thread_of_the_group_outlives_it(store: FeatureStore, tmp_path: Path):
    program = f"""
        import atexit, os
        from pathlib import Path
        def report():
            # Registered first, it runs last.
            names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
            (Path({str(tmp_path)!r}) / f"threads-{{os.environ['RANK']}}").write_text("\\n".join(names))
        atexit.register(report)
        import serfast
        store = serfast.FeatureStore.open({str(store.path)!r})
        serfast.train(store, output={str(tmp_path / "run")!r}, **{SMALL!r})
    """
    with launch(2, program) as process:
        assert process.wait() == 0
    for rank in (0, 1):
        names = (tmp_path / f"threads-{rank}").read_text().splitlines()
        assert names
        assert not [name for name in names if "gloo" in name]


@pytest.mark.usefixtures("processes")
def test_an_error_ends_all_processes(store: FeatureStore, tmp_path: Path):
    program = f"""
        import serfast
        store = serfast.FeatureStore.open({str(store.path)!r})
        serfast.train(store, output={str(tmp_path / "run")!r}, learning_rate=1e30, weight_decay=1e30, **{SMALL!r})
    """
    with launch(2, program, stderr=subprocess.PIPE) as process:
        errors = process.communicate()[1]
    assert process.returncode == 1
    assert "learning_rate must keep the loss finite" in errors


def test_processes_of_their_own_are_refused_under_torchrun(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="jobs must be None under torchrun, got 2"):
        serfast.cross_validate(store, output=tmp_path / "run", jobs=2, **SMALL)
