"""A corpus of 100 hours on disk into a feature store, and random batches of 64 utterances out of it.

The corpus is EmoDB's recordings over and over, each under a name of its own. Recorded are audio seconds per second with
one thread and with one for each core, peak resident memory, and the time of a batch, from the page cache and from where
``TMPDIR`` is; beside the threads that read and extract, another writes. How much faster two threads are is also
measured on EmoDB's samples in memory, half a minute of them at a time, in turn with two processes, with an integer loop
that needs neither memory nor the interpreter nor the vector units, and with products of whole registers that need
nothing else. 100 hours are 4 GB of rows; ``TMPDIR=/dev/shm`` leaves the speed of the disk out. Run with::

    SERFAST_EMODB=path/to/emodb python -m benchmarks.store [HOURS]
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numba import njit
from numpy.typing import NDArray

import serfast
from benchmarks.machine import machine
from serfast.corpora import load_corpus
from serfast.features import ExtractionProgress, FeatureStore, extract_corpus, lanes

BATCH = 64
N_BATCHES = 200
SCALING_TIMES = 8  # the whole corpus in each round: a second or two
SCALING_ROUNDS = 15
SCALING_CLIPS = 12  # at a time
N_STEPS = 300_000_000  # of the loop, about half a second
N_PRODUCTS = 4_000_000_000  # of registers, as long


def build_corpus(folder: Path, hours: float) -> Path:
    """Links to recordings and a manifest that names them."""
    recordings = sorted((Path(os.environ["SERFAST_EMODB"]) / "wav").resolve().glob("*.wav"))
    durations_s = [soundfile.info(recording).duration for recording in recordings]
    lines, total_s = ["file,emotion,speaker"], 0.0
    while total_s < hours * 3600:
        number = len(lines) - 1
        recording = recordings[number % len(recordings)]
        (folder / f"{number}.wav").symlink_to(recording)
        lines.append(f"{number}.wav,{recording.name[5]},{recording.name[:2]}")
        total_s += durations_s[number % len(recordings)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def extract(manifest: Path, store: Path, jobs: int) -> dict[str, float]:
    """Speed and memory of an extraction, in this process."""
    corpus = load_corpus("csv", manifest)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen: list[ExtractionProgress] = []
    started, used = time.perf_counter(), time.process_time()
    extract_corpus(corpus, store, jobs=jobs, on_progress=seen.append)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - used
    return {
        "jobs": jobs,
        "audio_h": seen[-1].audio_s / 3600,
        "times_real_time": seen[-1].audio_s / wall_s,
        "times_real_time_per_cpu_second": seen[-1].audio_s / cpu_s,
        "corpus_mib": before / 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


@njit(nogil=True)
def _step(state: int, n_steps: int) -> int:
    # A linear congruential generator: every step waits for the one before
    for _ in range(n_steps):
        state = state * 6364136223846793005 + 1442695040888963407
    return state


@njit(nogil=True)
def _multiply(values: NDArray[np.float32], n_products: int) -> None:
    # Eight chains: a product waits for none of the seven behind it
    factor = lanes.splat(np.float32(0.999))
    a, b, c, d = lanes.load(values, 0), lanes.load(values, 16), lanes.load(values, 32), lanes.load(values, 48)
    e, f, g, h = lanes.load(values, 64), lanes.load(values, 80), lanes.load(values, 96), lanes.load(values, 112)
    for _ in range(n_products // 8):
        a, b, c, d = factor * a + factor, factor * b + factor, factor * c + factor, factor * d + factor
        e, f, g, h = factor * e + factor, factor * f + factor, factor * g + factor, factor * h + factor
    lanes.store(values, 0, a + b + c + d + e + f + g + h)


def _loop(n_threads: int) -> None:
    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(_step, range(n_threads), [N_STEPS] * n_threads))


def _products(n_threads: int) -> None:
    values = [np.ones(128, dtype=np.float32) for _ in range(n_threads)]
    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(_multiply, values, [N_PRODUCTS] * n_threads))


def _waveforms() -> list[NDArray[np.float32]]:
    recordings = sorted((Path(os.environ["SERFAST_EMODB"]) / "wav").glob("*.wav"))
    return [soundfile.read(recording, dtype="float32")[0] for recording in recordings] * SCALING_TIMES


def _work(orders: Connection) -> None:
    """In a process: extract every n-th waveform from the first on that ``orders`` name, until they name none."""
    waveforms = _waveforms()
    serfast.extract(waveforms[0], 16000)
    while (order := orders.recv()) is not None:
        first, step = order
        for waveform in waveforms[first::step]:
            serfast.extract(waveform, 16000)
        orders.send("done")


@contextmanager
def _processes() -> Iterator[Callable[[int], None]]:
    """What has one of two processes, or both, extract all waveforms."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    workers = [context.Process(target=_work, args=(theirs,)) for _, theirs in pipes]
    for worker in workers:
        worker.start()

    def extract_all(n_processes: int) -> None:
        for place in range(n_processes):
            pipes[place][0].send((place, n_processes))
        for ours, _ in pipes[:n_processes]:
            ours.recv()

    yield extract_all
    for (ours, _), worker in zip(pipes, workers, strict=True):
        ours.send(None)
        worker.join()


def scaling(in_processes: Callable[[int], None]) -> dict[str, Any]:
    """Speed of two threads or processes over that of one by the clock, medians over rounds in turn."""
    waveforms = _waveforms()
    parts = [waveforms[first : first + SCALING_CLIPS] for first in range(0, len(waveforms), SCALING_CLIPS)]

    def extract_part(part: list[NDArray[np.float32]]) -> None:
        for waveform in part:
            serfast.extract(waveform, 16000)

    def extract_all(n_threads: int) -> None:
        with ThreadPoolExecutor(n_threads) as threads:
            list(threads.map(extract_part, parts))

    tasks: dict[str, tuple[Callable[[int], None], int]] = {
        "28 descriptors": (extract_all, 1),
        "28 descriptors, processes": (in_processes, 1),
        "integer loop": (_loop, 2),
        "products of registers": (_products, 2),
    }
    ratios: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(SCALING_ROUNDS + 1):
        for name, (task, work) in tasks.items():  # loops have twice the work in two threads
            times_s = []
            for n_threads in (1, 2):
                started = time.perf_counter()
                task(n_threads)
                times_s.append(time.perf_counter() - started)
            if round_number > 0:
                ratios[name].append(work * times_s[0] / times_s[1])
    return {
        name: {"median": float(np.median(found)), "least": min(found), "most": max(found)}
        for name, found in ratios.items()
    }


def read_batches(path: Path, *, cached: bool) -> dict[str, float]:
    """Time of a random batch, end to end in one array."""
    store = FeatureStore.open(path)
    generator = np.random.default_rng(0)
    times_s, n_bytes = [], 0
    for _ in range(N_BATCHES):
        indices = generator.integers(len(store.lengths), size=BATCH)
        if cached:
            store.gather(indices)
        else:
            with (path / "rows.f32").open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        n_bytes += store.gather(indices).nbytes
        times_s.append(time.perf_counter() - started)
    return {"median_ms": 1e3 * float(np.median(times_s)), "mib_per_s": n_bytes / sum(times_s) / 2**20}


def main() -> None:
    """Measure and record."""
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 100.0
    results: dict[str, Any] = {"machine": machine(), "hours": hours, "extraction": []}
    with tempfile.TemporaryDirectory() as folder:
        manifest = build_corpus(Path(folder), hours)
        for jobs in (1, len(os.sched_getaffinity(0))):
            arguments = ["extract", str(manifest), str(Path(folder) / f"store{jobs}"), str(jobs)]
            output = subprocess.check_output([sys.executable, "-m", "benchmarks.store", *arguments], text=True)
            results["extraction"].append(json.loads(output))
        with _processes() as in_processes:
            results["two_over_one"] = scaling(in_processes)
        store = Path(folder) / "store1"
        results["batch_of_64"] = {name: read_batches(store, cached=name == "cached") for name in ("cached", "disk")}
    text = json.dumps(results, indent=1)
    print(text)
    (Path(__file__).parent / "results" / "store.json").write_text(text + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["extract"]:
        print(json.dumps(extract(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
