"""Whole corpora: threads, order, progress, memory."""

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfast import extract_corpus, load_corpus
from serfast.corpora import Corpus, find_duplicates
from serfast.features import FeatureOptions, FeatureStore, bulk, extract_file

FORMATS = (("wav", 16000), ("flac", 16000), ("wav", 44100), ("ogg", 22050), ("wav", 8000))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    lines = ["file,emotion,speaker"]
    for number in range(40):
        suffix, rate = FORMATS[number % len(FORMATS)]
        generator = np.random.default_rng(number)
        phase = 2 * np.pi * np.cumsum(np.geomspace(100, 200 + number, int(rate * (0.3 + 0.05 * (number % 17))))) / rate
        waveform = 0.2 * np.sin(phase) + 0.1 * np.sin(3 * phase) + 0.01 * generator.standard_normal(len(phase))
        soundfile.write(tmp_path / f"{number}.{suffix}", waveform, rate)
        lines.append(f"{number}.{suffix},{('sad', 'happy')[number % 2]},s{number % 4}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return load_corpus("csv", tmp_path / "manifest.csv")


def test_any_number_of_threads_gives_the_bits_of_a_single_file(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TASK_BYTES", 50_000)
    for jobs in (1, 2, 7):
        store = extract_corpus(corpus, tmp_path / f"store{jobs}", jobs=jobs)
        for index, utterance in enumerate(corpus.utterances):
            np.testing.assert_array_equal(store.utterance_rows(index), extract_file(utterance.path, store.options))


def test_a_store_names_recordings_as_the_search_for_duplicates_does(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy.wav").write_bytes(corpus.utterances[0].path.read_bytes())
    twice = (*corpus.utterances, replace(corpus.utterances[0], key="copy.wav", path=tmp_path / "copy.wav"))
    compared: list[str] = []
    monkeypatch.setattr("serfast.corpora.corpus.group_duplicates", lambda _, contents: compared.extend(contents))
    find_duplicates(twice)
    store = extract_corpus(corpus, tmp_path / "store", jobs=1)
    assert compared[0] == compared[-1] == store.sources[0]


def test_the_largest_files_come_first_and_small_ones_share_a_task(corpus: Corpus) -> None:
    tasks = bulk._schedule(corpus)
    sizes = [utterance.path.stat().st_size for task in tasks for utterance in task]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 40
    assert len(tasks) < 10


def test_no_more_tasks_are_begun_than_twice_the_threads(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TASK_BYTES", 1)
    begun, seen = [], []
    extract_task = bulk._extract_task

    def counted(*arguments: object) -> list[bulk._Extracted]:
        begun.append(arguments)
        return extract_task(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk, "_extract_task", counted)
    extract_corpus(corpus, tmp_path / "store", jobs=2, on_progress=lambda progress: seen.append((progress, len(begun))))
    assert len(seen) == 40
    assert all(n_begun <= progress.n_done + 4 for progress, n_begun in seen)
    assert [progress.n_done for progress, _ in seen] == list(range(1, 41))
    assert seen[-1][0].audio_s == pytest.approx(
        sum(soundfile.info(u.path).duration for u in corpus.utterances), rel=0.02
    )


def test_an_interrupted_run_goes_on(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TASK_BYTES", 1)
    monkeypatch.setattr(bulk, "COMMIT_EVERY_S", 0.0)

    def stop(progress: bulk.ExtractionProgress) -> None:
        if progress.n_done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_corpus(corpus, tmp_path / "store", on_progress=stop)
    seen = []
    store = extract_corpus(corpus, tmp_path / "store", on_progress=seen.append)
    whole = extract_corpus(corpus, tmp_path / "whole")
    assert 0 < seen[-1].audio_s < sum(whole.lengths) * 0.01 - 1
    np.testing.assert_array_equal(store.gather(range(40)), whole.gather(range(40)))


def test_broken_files_are_listed_whatever_the_threads(corpus: Corpus, tmp_path: Path) -> None:
    corpus.utterances[3].path.write_bytes(b"")
    corpus.utterances[8].path.unlink()
    store = extract_corpus(corpus, tmp_path / "store", jobs=3)
    assert set(store.broken) == {corpus.utterances[3].key, corpus.utterances[8].key}
    assert "No such file" in store.broken[corpus.utterances[8].key]
    assert len(store.lengths) == 38


def test_threads_must_be_positive(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        extract_corpus(corpus, tmp_path / "store", jobs=0)


def _jobs_here(queue: "multiprocessing.SimpleQueue[int]") -> None:
    queue.put(bulk._default_jobs())


def test_a_worker_process_uses_one_thread() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_jobs_here, args=(queue,))
    process.start()
    assert queue.get() == 1
    process.join()


def test_threads_follow_torch_where_it_is_imported() -> None:
    code = "import torch; torch.set_num_threads(3); from serfast.features import bulk; assert bulk._default_jobs() == 3"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import os, sys; from serfast.features import bulk; assert 'torch' not in sys.modules;"
        "assert bulk._default_jobs() == len(os.sched_getaffinity(0))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_segments_of_one_file_are_its_parts(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(32000)
    soundfile.write(tmp_path / "long.wav", noise, 16000)
    lines = ["file,emotion,speaker,start,end", "long.wav,sad,a,0.0,0.5", "long.wav,happy,b,0.5,1.25"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    store: FeatureStore = extract_corpus(load_corpus("csv", tmp_path / "manifest.csv"), tmp_path / "store")
    expected = extract_file(tmp_path / "long.wav", FeatureOptions(), start_s=0.5, end_s=1.25)
    np.testing.assert_array_equal(store.utterance_rows(1), expected)
