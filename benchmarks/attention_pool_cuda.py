"""Attention pooling on a GPU, eqs. 8 and 9, float32 and bfloat16: serfast against the peers of ``attention_pool``.

The batches are those of ``attention_pool``: 32 utterances of 256 units, where a step is short and is replayed as a CUDA
graph (the peers' as well), and 512 of 512 units. Times are medians of CUDA events in three runs that take turns. The
floor is what copying the valid frames tells of reading them once (forward), or of reading them twice and writing them
once (forward + backward), under the same clock; a large GPU's cache holds a small batch, and its copy too.
Results are checked against plain PyTorch without dropout before anything is timed. Run::

    python -m benchmarks.attention_pool_cuda [small] [large] [grouped] [random] [--output FILE]
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

from benchmarks.attention_pool import DIRECTIONS, batch_lengths, eager, fused, padded, sdpa
from benchmarks.machine import machine

N_RUNS, N_WARM, N_ROUNDS, N_CALLS = 3, 3, 20, 5  # calls between two events, of which a round's time is the mean
SIZES = {"small": (32, 256), "large": (512, 512)}
DTYPES = (torch.float32, torch.bfloat16)
Work = Callable[[], object]


def captured(work: Work) -> Work:
    """The same work as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(N_WARM):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def round_ms(work: Work, device: str) -> float:
    """Mean time of N_CALLS calls, by the device's clock."""
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(N_CALLS):
            work()
        return 1000 * (time.perf_counter() - started) / N_CALLS
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(N_CALLS):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / N_CALLS


def median_ms(work: Work, device: str) -> float:
    for _ in range(N_WARM):
        work()
    return statistics.median(round_ms(work, device) for _ in range(N_ROUNDS))


def example(size: str, batch_kind: str, equation: int, dtype: torch.dtype, device: str) -> tuple[Tensor, list[Tensor]]:
    """Lengths (batch,), and packed rows (row, unit), the query and, for eq. 8, the projection."""
    n_utterances, n_units = SIZES[size]
    lengths, generator = batch_lengths(batch_kind, n_utterances), torch.Generator().manual_seed(1)
    shapes = [(int(lengths.sum()), n_units), (n_units,), *([(n_units, n_units)] if equation == 8 else [])]
    scales = [1.0, n_units**-0.5, n_units**-0.5]
    tensors = [torch.randn(shape, generator=generator) * scale for shape, scale in zip(shapes, scales, strict=False)]
    return lengths, [tensor.to(device, dtype).requires_grad_() for tensor in tensors]


def check(lengths: Tensor, inputs: list[Tensor], batch: Tensor, device: str, direction: str) -> None:
    """Compare serfast with plain PyTorch in float32, both without dropout."""
    run, is_training = DIRECTIONS[direction], direction != "forward"
    got = run(fused(lengths, 0.0, device=device, training=is_training), *inputs)
    plain = [tensor.detach().float().requires_grad_() for tensor in (batch, *inputs[1:])]
    for result, truth in zip(got, run(eager(lengths.to(device), None), *plain), strict=True):
        shaped = padded(result, lengths) if result.shape == inputs[0].shape else result
        limit = 8 * torch.finfo(result.dtype).eps if result.dtype != torch.float32 else 1e-3
        assert (shaped - truth).abs().max() <= limit * truth.abs().max().clamp(min=1.0)


def measure(
    size: str, batch_kind: str, equation: int, dtype: torch.dtype, dropout: float, direction: str, device: str
) -> dict[str, object]:
    lengths, inputs = example(size, batch_kind, equation, dtype, device)
    rows, parameters = inputs[0].detach(), inputs[1:]
    batch = padded(rows, lengths).requires_grad_()
    check(lengths, inputs, batch, device, direction)
    run, on_device, written = DIRECTIONS[direction], lengths.to(device), torch.empty_like(rows)
    plain = eager(on_device, (lambda scaled: functional.dropout(scaled, dropout)) if dropout > 0 else None)
    ours = fused(lengths, dropout, device=device, training=direction != "forward")
    compiled, attention = torch.compile(plain), sdpa(on_device, dropout)
    works: dict[str, Work] = {
        "serfast": lambda: run(ours, *inputs),
        "eager": lambda: run(plain, batch, *parameters),
        "compile": lambda: run(compiled, batch, *parameters),
        "sdpa": lambda: run(attention, batch, *parameters),
        "copy": lambda: written.copy_(rows),
    }
    as_graph = size == "small" and device == "cuda"
    if as_graph:
        works = {name: captured(work) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(N_RUNS):
        for name, work in works.items():
            times[name].append(median_ms(work, device))
    passes = 0.5 if direction == "forward" else 1.5  # a copy reads and writes
    return {
        "workload": f"{len(lengths)} x {rows.shape[1]}, {batch_kind}, eq. {equation}, {dtype}, dropout {dropout}",
        "direction": direction,
        "as_graph": as_graph,
        "valid_frames": len(rows),
        "padded_frames": batch.shape[0] * batch.shape[1],
        "copy_gb_per_s": [round(2e-6 * rows.nbytes / copy, 1) for copy in times["copy"]],
        "median_ms": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "times_faster": {
            name: [round(peer / own, 2) for peer, own in zip(times[name], times["serfast"], strict=True)]
            for name in ("eager", "compile", "sdpa")
        },
        "times_floor": [
            round(own / (passes * copy), 2) for own, copy in zip(times["serfast"], times["copy"], strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("choices", nargs="*", choices=[*SIZES, "grouped", "random", []], help="default: all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="the CPU only tries the module out")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args()
    results = []
    for size in [size for size in SIZES if size in arguments.choices] or list(SIZES):
        for batch_kind in [kind for kind in ("grouped", "random") if kind in arguments.choices] or [
            "grouped",
            "random",
        ]:
            for equation in (9, 8):
                for dtype in DTYPES:
                    for dropout in (0.0, 0.5):
                        for direction in DIRECTIONS:
                            torch.compiler.reset()
                            case = (size, batch_kind, equation, dtype, dropout, direction)
                            results.append(measure(*case, arguments.device))
                            print(json.dumps(results[-1]), flush=True)
    if arguments.output is not None:
        gpu = torch.cuda.get_device_name() if arguments.device == "cuda" else "none"
        ours = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": gpu}
        found = {"machine": machine(), **ours, "results": results}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
