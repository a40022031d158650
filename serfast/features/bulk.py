"""Features of a whole corpus, extracted once into a feature store."""

import hashlib
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serfast import audio
from serfast.corpora import Corpus, Utterance, content_digest
from serfast.errors import CorpusError
from serfast.features.extract import extract, feature_names
from serfast.features.options import DEFAULT_OPTIONS, FeatureOptions
from serfast.features.store import FeatureStore, StoreWriter

__all__ = ["ExtractionProgress", "default_store_path", "extract_corpus", "extract_file"]

COMMIT_EVERY_S = 10.0
TASK_BYTES = 1 << 20  # of recordings in one task, half a minute: fewer hand-overs between threads


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction has come: utterances looked at, of how many, and seconds of audio read so far."""

    n_done: int
    n_utterances: int
    audio_s: float
    elapsed_s: float


def default_store_path(corpus: Corpus, options: FeatureOptions) -> Path:
    """Folder in the user's cache for the features of ``corpus``; ``SERFAST_CACHE`` names another cache.

    Corpora read from one place share a folder whatever emotions were chosen of them.
    """
    cache = Path(os.environ.get("SERFAST_CACHE") or Path.home() / ".cache" / "serfast")
    root = os.path.commonpath([utterance.path.resolve().parent for utterance in corpus.utterances])
    place = hashlib.sha256(f"{root} {options.digest()}".encode()).hexdigest()[:16]
    return cache / "features" / f"{corpus.name}-{place}"


def extract_file(
    path: Path,
    options: FeatureOptions,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    content: bytes | None = None,
) -> NDArray[np.float32]:
    """Features (frame, feature) of a recording, or of its segment from ``start_s`` to ``end_s``.

    Args:
        path: the recording.
        options: how to extract.
        start_s: where the segment starts.
        end_s: where it ends; None for the end of the recording.
        content: the file's bytes, if they have been read.

    Raises:
        CorpusError: naming the file, if it cannot be read or its waveform cannot be analysed.
    """
    clip = audio.read(path, sample_rate=options.sample_rate, start_s=start_s, end_s=end_s, content=content)
    try:
        return extract(clip.waveform, clip.sample_rate, options)
    except ValueError as error:
        raise CorpusError(f"{path}: {error}") from error


def extract_corpus(
    corpus: Corpus,
    store: str | Path,
    options: FeatureOptions | None = None,
    *,
    jobs: int | None = None,
    on_progress: Callable[[ExtractionProgress], None] | None = None,
) -> FeatureStore:
    """Bring the store in the folder ``store`` up to date with ``corpus`` and present it as that corpus.

    Utterances whose recording and options are unchanged are not extracted again. An interrupted run goes on where it
    stopped. A recording that breaks a rule does not stop the others: it is listed with the reason in ``broken``.
    Files are read, decoded and analysed by threads, the largest first; each utterance gets the same bits as alone.

    Args:
        corpus: utterances whose recordings exist on disk.
        store: folder of the store; made if missing.
        options: how to extract; the defaults of :class:`FeatureOptions` when None.
        jobs: threads. When None: as many as torch uses if it has been imported, else one for every processor that the
            process may use; one in a worker process.
        on_progress: called after every few utterances.

    Raises:
        ValueError: if the folder holds features of other options, or ``jobs`` is not positive.
        CorpusError: if not one utterance could be extracted.
    """
    options = options or DEFAULT_OPTIONS
    jobs = _default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    writer = StoreWriter(store, options, feature_names(options))
    try:
        return _fill(writer, corpus, options, jobs, on_progress)
    finally:
        writer.close()


@dataclass(frozen=True)
class _Extracted:
    utterance: Utterance
    source: str = ""
    features: NDArray[np.float32] | None = None  # None if they are in the store, or broken
    broken: str = ""


def _default_jobs() -> int:
    if multiprocessing.parent_process() is not None:
        return 1
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fill(
    writer: StoreWriter,
    corpus: Corpus,
    options: FeatureOptions,
    jobs: int,
    on_progress: Callable[[ExtractionProgress], None] | None,
) -> FeatureStore:
    sources: dict[str, str] = {}
    broken: dict[str, str] = {}
    n_done, audio_s, started = 0, 0.0, time.monotonic()
    committed = started
    for results in _extracted(writer, _schedule(corpus), options, jobs):
        for result in results:
            n_done += 1
            if result.broken:
                broken[result.utterance.key] = result.broken
                continue
            sources[result.utterance.key] = result.source
            if result.features is not None:
                writer.append(result.utterance.key, result.source, result.features)
                audio_s += len(result.features) * options.hop / options.sample_rate
        if on_progress is not None:
            on_progress(ExtractionProgress(n_done, len(corpus.utterances), audio_s, time.monotonic() - started))
        if time.monotonic() - committed > COMMIT_EVERY_S:
            writer.commit()
            committed = time.monotonic()
    if len(broken) == len(corpus.utterances):
        key, reason = next(iter(broken.items()))
        raise CorpusError(f"corpus {corpus.name} must hold at least one sound recording, got none; {key}: {reason}")
    return writer.finish(corpus, sources, broken)


def _schedule(corpus: Corpus) -> list[list[Utterance]]:
    """Tasks of one file, or of several small ones, the largest first: the last to end are short."""
    by_path: dict[Path, list[Utterance]] = {}
    for utterance in corpus.utterances:
        by_path.setdefault(utterance.path, []).append(utterance)
    sized = [(path.stat().st_size if path.is_file() else 0, number, path) for number, path in enumerate(by_path)]
    tasks: list[list[Utterance]] = []
    free = 0
    for size, _, path in sorted(sized, key=lambda entry: (-entry[0], entry[1])):
        if free < size or not tasks:
            tasks.append([])
            free = TASK_BYTES
        tasks[-1] += by_path[path]
        free -= size
    return tasks


def _extracted(
    writer: StoreWriter, tasks: list[list[Utterance]], options: FeatureOptions, jobs: int
) -> Iterator[list[_Extracted]]:
    """Results of the tasks in their order, of which no more are begun than twice the threads."""
    waiting: deque[Future[list[_Extracted]]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="features")
    try:
        for task in tasks:
            if len(waiting) == 2 * jobs:
                yield waiting.popleft().result()
            waiting.append(pool.submit(_extract_task, writer, task, options))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _extract_task(writer: StoreWriter, task: list[Utterance], options: FeatureOptions) -> list[_Extracted]:
    results = []
    for path, utterances in groupby(task, key=lambda utterance: utterance.path):
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = f"{path} must be readable, got {error.strerror or error}"
            results += [_Extracted(utterance, broken=reason) for utterance in utterances]
            continue
        source = content_digest(content)
        for utterance in utterances:
            if writer.holds(utterance.key, source):
                results.append(_Extracted(utterance, source))
                continue
            try:
                features = extract_file(
                    path, options, start_s=utterance.start_s, end_s=utterance.end_s, content=content
                )
                results.append(_Extracted(utterance, source, features))
            except CorpusError as error:
                results.append(_Extracted(utterance, broken=str(error)))
    return results
