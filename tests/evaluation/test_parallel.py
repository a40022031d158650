import dataclasses
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import joblib
import psutil
import pytest
import torch
from dask.distributed import Client, LocalCluster

import serfast
from serfast import CorpusError, FeatureStore
from serfast.evaluation.fold_reports import FoldReport, fold_reports
from serfast.evaluation.progress import Progress
from serfast.training import EpochRecord

QUICK = {"n_units": 8, "n_layers": 1, "n_epochs": 2, "batch_size": 16, "encoder_dropout": 0.2, "pooling_dropout": 0.3}
LONG = {**QUICK, "n_epochs": 40, "patience": 40, "protocol": "paper"}
ENDLESS = {**LONG, "n_epochs": 100_000, "patience": 100_000}


@pytest.fixture
def store(make_store: Callable[..., FeatureStore], tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", n_speakers=4, n_utterances=12)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    workers = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None)
    with workers, Client(workers) as client:
        yield client


@pytest.fixture
def elsewhere_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the fold must not run in the asking process")

    monkeypatch.setattr("serfast.evaluation.parallel.run_fold", refuse)


def models(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("model.safetensors")}


def hidden(output: Path) -> list[str]:
    return [path.name for path in output.glob(".reports-*")]


def epochs(output: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in output.rglob("metrics.jsonl"))


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def begin(store: FeatureStore, output: Path, options: dict = LONG, **streams: int) -> subprocess.Popen[bytes]:
    """A process that cross-validates for a long time, and has got as far as two folds."""
    program = textwrap.dedent(f"""
        import sys, torch, serfast
        torch.set_num_threads(2)
        store = serfast.FeatureStore.open({str(store.path)!r})
        try:
            serfast.cross_validate(store, output={str(output)!r}, jobs=2, **{options!r})
        except KeyboardInterrupt:
            sys.exit(130)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, **streams)
    wait_until(lambda: len(list(output.rglob("metrics.jsonl"))) >= 2)
    return process


def members(session: int) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if session == os.getsid(process.pid)]


def test_processes_give_the_bits_of_one_process(store: FeatureStore, tmp_path: Path, request: pytest.FixtureRequest):
    options = {**QUICK, "progress": False, "scheme": "greedy"}
    alone = serfast.cross_validate(store, output=tmp_path / "alone", **options)
    torch.set_num_threads(2)
    request.getfixturevalue("elsewhere_only")
    parallel = serfast.cross_validate(store, output=tmp_path / "parallel", jobs=2, **options)
    assert parallel.predictions == alone.predictions
    assert [fold.name for fold in parallel.folds] == [fold.name for fold in alone.folds]
    assert len(models(tmp_path / "alone")) == 8
    assert models(tmp_path / "parallel") == models(tmp_path / "alone")
    assert {fold.environment["threads"] for fold in parallel.folds} == {"1"}
    assert torch.get_num_threads() == 2
    assert not hidden(tmp_path / "parallel")


def test_threads_give_the_bits_of_one_process(store: FeatureStore, tmp_path: Path):
    alone = serfast.cross_validate(store, output=tmp_path / "alone", progress=False, **QUICK)
    with joblib.parallel_config("threading", n_jobs=4):
        threads = serfast.cross_validate(store, output=tmp_path / "threads", progress=False, **QUICK)
    assert threads.predictions == alone.predictions


def test_a_dask_cluster_gives_the_bits_of_one_process(
    store: FeatureStore, cluster: Client, tmp_path: Path, request: pytest.FixtureRequest
):
    alone = serfast.cross_validate(store, output=tmp_path / "alone", progress=False, **QUICK)
    request.getfixturevalue("elsewhere_only")
    with joblib.parallel_config("dask"):
        sent = serfast.cross_validate(store, output=tmp_path / "sent", progress=False, **QUICK)
    assert sent.predictions == alone.predictions
    assert models(tmp_path / "sent") == models(tmp_path / "alone")


@pytest.mark.parametrize("backend", ["dask", "loky"])
def test_an_error_in_another_process_names_the_fold(store: FeatureStore, cluster: Client, tmp_path: Path, backend: str):
    broken = tmp_path / "run" / "folds" / "speaker_s2"
    serfast.cross_validate(store, output=tmp_path / "run", progress=False, **QUICK)
    (tmp_path / "run" / "result.json").unlink()
    (broken / "fold.json").write_text("nonsense")
    with (
        joblib.parallel_config(backend, n_jobs=2),
        pytest.raises(CorpusError, match=r"fold speaker_s2: .*fold.json must be a JSON file"),
    ):
        serfast.cross_validate(store, output=tmp_path / "run", progress=False, **QUICK)


@pytest.mark.usefixtures("processes")
def test_a_worker_that_is_killed_is_reported_with_its_fold(store: FeatureStore, tmp_path: Path):
    output = tmp_path / "run"

    def kill() -> None:
        wait_until(lambda: epochs(output) >= 2)
        workers = [child for child in psutil.Process().children() if "popen_loky_posix" in " ".join(child.cmdline())]
        workers[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RuntimeError, match="(?s)a worker process ended in the fold .*_s[01].* goes on where this one"):
        serfast.cross_validate(store, output=output, jobs=2, progress=False, **ENDLESS)
    killer.join()
    assert not hidden(output)


@pytest.mark.usefixtures("processes")
def test_control_c_stops_all_processes_and_leaves_a_run_that_goes_on(store: FeatureStore, tmp_path: Path):
    output = tmp_path / "run"
    with begin(store, output, stderr=subprocess.PIPE) as process:
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "Traceback" not in errors
    wait_until(lambda: not members(process.pid))
    assert not hidden(output)
    assert 2 <= epochs(output) < 4 * LONG["n_epochs"]
    resumed = serfast.cross_validate(store, output=output, progress=False, **LONG)
    whole = serfast.cross_validate(store, output=tmp_path / "whole", progress=False, **LONG)
    assert resumed.predictions == whole.predictions


@pytest.mark.usefixtures("processes")
def test_what_a_killed_process_left_behind_makes_room(store: FeatureStore, tmp_path: Path):
    output = tmp_path / "run"
    with begin(store, output, stderr=subprocess.DEVNULL) as process:
        os.kill(process.pid, signal.SIGKILL)
    again = serfast.cross_validate(store, output=output, jobs=2, progress=False, **LONG)
    whole = serfast.cross_validate(store, output=tmp_path / "whole", progress=False, **LONG)
    assert again.predictions == whole.predictions


@pytest.mark.usefixtures("processes")
def test_a_stopped_run_stops_its_folds_on_a_cluster(store: FeatureStore, cluster: Client, tmp_path: Path):
    output = tmp_path / "run"

    def interrupt() -> None:
        wait_until(lambda: epochs(output) >= 2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt), joblib.parallel_config("dask"):
        serfast.cross_validate(store, output=output, progress=False, **ENDLESS)
    interrupter.join()
    wait_until(lambda: not any(cluster.processing().values()))
    done = epochs(output)
    time.sleep(0.5)
    assert epochs(output) == done
    assert not (output / "result.json").exists()


def test_every_epoch_of_every_process_is_a_line(store: FeatureStore, tmp_path: Path, capfd: pytest.CaptureFixture):
    result = serfast.cross_validate(store, output=tmp_path / "run", jobs=2, **QUICK)
    lines = capfd.readouterr().err.splitlines()
    for number, fold in enumerate(result.folds, start=1):
        of_fold = [line for line in lines if line.startswith(f"fold {number}/4 {fold.name} ")]
        assert [line.split("epoch")[1].split()[0] for line in of_fold[:-1]] == ["1/2", "2/2"]
        assert of_fold[-1].endswith(f"UA {fold.ua:.3f} WA {fold.wa:.3f}")
    assert len(lines) == 12


def test_a_terminal_shows_a_table_of_the_folds_in_work(store: FeatureStore, tmp_path: Path):
    screen, terminal = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(screen, 4096))
            except OSError:
                return

    reader = threading.Thread(target=read)
    reader.start()
    options = {**LONG, "n_epochs": 400, "patience": 400}
    with begin(store, tmp_path / "run", options, stderr=terminal) as process:
        os.close(terminal)
        # The columns fit into the 80 of a terminal that does not say its width, in late epochs too.
        wait_until(lambda: process.poll() is not None or (b"fold 2/4" in shown and re.search(rb"\d\d/400", shown)))
        assert process.poll() is None, shown.decode()
        os.killpg(process.pid, signal.SIGINT)
    reader.join()
    os.close(screen)
    assert "at most left" in shown.decode()
    assert "0 of 4 folds finished" in shown.decode()


def test_the_time_left_is_that_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    clock = iter([100.0, 110.0, 130.0])
    # the module's own clock: that of the process is read by the cluster's threads too
    monkeypatch.setattr("serfast.evaluation.fold_reports.time", SimpleNamespace(time=lambda: next(clock)))
    record = EpochRecord(1, 6, 0.5, 0.4, 0.5, 0.5, 0.5, True, seconds=0.1)  # its share of a step with others
    with fold_reports(tmp_path, ["a"], Progress(True)) as (report,):
        report.begin()
        report.epoch(record)
        report.epoch(dataclasses.replace(record, epoch=2))
    first, second = capfd.readouterr().err.splitlines()
    assert first.endswith("10.0 s  at most 0:50 left")
    assert second.endswith("20.0 s  at most 1:00 left")


def test_reports_stop_a_fold_that_nobody_waits_for(tmp_path: Path):
    left_behind = FoldReport(tmp_path / ".reports-killed" / "0.jsonl")
    left_behind.path.parent.mkdir()
    left_behind.begin()
    with fold_reports(tmp_path, ["a", "b"], Progress(False)) as (report, other):
        report.begin()
        assert (report.in_work(), other.in_work()) == (True, False)
        with pytest.raises(RuntimeError, match="must go on, got one that was stopped"):
            left_behind.begin()
    with pytest.raises(RuntimeError, match="must go on, got one that was stopped"):
        report.begin()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("jobs", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_number_of_processes_that_makes_no_sense_is_refused(
    store: FeatureStore, tmp_path: Path, jobs: object, error: type[Exception]
):
    with pytest.raises(error, match="jobs must be"):
        serfast.cross_validate(store, output=tmp_path / "run", jobs=jobs, progress=False, **QUICK)
