"""The product of evaluation, float32: the projections of eq. 8 and of an LSTM layer over a batch, and a small decoder.

The peer is ``torch.nn.functional.linear``, whose bits may change with the number of rows. The two take turns in three
runs; each figure is the median of a run. Run::

    OMP_NUM_THREADS=1 python -m benchmarks.linear [--output FILE]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import machine
from serfast.ops import cpu_capability, linear

N_RUNS, N_ROUNDS = 3, 15
SHAPES = {"projection": (9000, 512, 512), "layer": (9000, 256, 1024), "decoder": (256, 256, 7)}


def median_ms(work: Callable[[], Tensor]) -> float:
    work()
    times_ms = []
    for _ in range(N_ROUNDS):
        start = time.perf_counter()
        work()
        times_ms.append(1000 * (time.perf_counter() - start))
    return statistics.median(times_ms)


@torch.inference_mode()
def measure(name: str) -> dict[str, object]:
    n_rows, n_in, n_out = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(n_rows, n_in, generator=generator), torch.randn(n_out, n_in, generator=generator)
    torch.testing.assert_close(linear(rows, weight), functional.linear(rows, weight), rtol=1e-4, atol=1e-3)
    own, peer = [], []
    for _ in range(N_RUNS):
        own.append(median_ms(lambda: linear(rows, weight)))
        peer.append(median_ms(lambda: functional.linear(rows, weight)))
    return {
        "workload": f"{name}: {n_rows} x {n_in} -> {n_out}",
        "serfast_ms": [round(value, 3) for value in own],
        "torch_ms": [round(value, 3) for value in peer],
        "serfast_gflops": [round(2e-6 * n_rows * n_in * n_out / value, 1) for value in own],
        "times_faster": [round(b / a, 2) for a, b in zip(own, peer, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args()
    results = [measure(name) for name in SHAPES]
    for result in results:
        print(json.dumps(result))
    if arguments.output is not None:
        ours = {"torch": torch.__version__, "cpu_capability": cpu_capability(), "threads": torch.get_num_threads()}
        found = {"machine": machine(), **ours, "results": results}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
