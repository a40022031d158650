"""Attention pooling (eq. 9) of batches with IEMOCAP-like lengths at a 10 ms hop, float32: serfast against its peers.

Lengths are log-normal (mean 450 frames, sigma 0.6, 60 to 3400), random or of neighbours in a corpus of 5,000 sorted by
length. Peers work on the padded batch, whose padding and mask are made outside the timer: plain PyTorch (masked
softmax, with dropout on each element of the scaled vectors), the same under ``torch.compile``, and scaled dot product
attention, which can only drop whole weights. ``read`` and ``copy`` touch the bytes of the valid frames once, into
memory that is there already: the least that forward, and forward + backward (read, then read and write), can take.
Results are checked before anything is timed; the peers take turns in three runs, and ratios are to serfast in the same
run. Run::

    OMP_NUM_THREADS=1 python -m benchmarks.attention_pool [small] [large] [grouped] [random]
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
from serfast.ops import Lengths, attention_pool, cpu_capability
from serfast.reference.attention_pool import dropout_mask, utterance_seeds

N_RUNS, RUN_S, LEAST_ROUNDS, MOST_ROUNDS = 3, 0.5, 3, 200
SIZES = {"small": (32, 256), "large": (256, 512)}
Pool = Callable[..., Tensor]  # of hidden vectors, the query, and the projection of eq. 8 if there is one
Times = dict[str, list[float]]


def corpus_lengths() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    log_mean = torch.log(torch.tensor(450.0)) - 0.6**2 / 2
    return torch.exp(log_mean + 0.6 * torch.randn(5000, generator=generator)).long().clamp(60, 3400)


def batch_lengths(batch: str, n_utterances: int) -> Tensor:
    lengths = corpus_lengths()
    if batch == "grouped":
        middle = len(lengths) // 2
        return lengths.sort().values[middle : middle + n_utterances]
    return lengths[:n_utterances]


def padded(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows.split(lengths.tolist())), batch_first=True)


def fused(lengths: Tensor, dropout: float, *, device: str = "cpu", training: bool = False) -> Pool:
    utterances = Lengths.packed(lengths, device=device)
    options = {"dropout": dropout, "training": training or dropout > 0, "seed": 1}
    return lambda rows, *parameters: attention_pool(rows, utterances, *parameters, **options)[0]


def eager(lengths: Tensor, drop: Callable[[Tensor], Tensor] | None) -> Pool:
    is_padding = torch.arange(int(lengths.max()), device=lengths.device) >= lengths[:, None]

    def pool(hidden: Tensor, query: Tensor, projection: Tensor | None = None) -> Tensor:
        scored = hidden if projection is None else torch.tanh(hidden @ projection.T)
        weights = torch.softmax((scored @ query).masked_fill(is_padding, -torch.inf), dim=1)
        if drop is None:
            return torch.einsum("bt,btu->bu", weights, hidden)
        return drop(weights[..., None] * hidden).sum(dim=1)

    return pool


def sdpa(lengths: Tensor, dropout: float) -> Pool:
    times = torch.arange(int(lengths.max()), device=lengths.device)
    is_frame = (times < lengths[:, None])[:, None, None]  # (batch, head, query, time)

    def pool(hidden: Tensor, query: Tensor, projection: Tensor | None = None) -> Tensor:
        scored = hidden if projection is None else torch.tanh(hidden @ projection.T)
        queries = query.expand(len(hidden), 1, 1, -1)
        options = {"attn_mask": is_frame, "dropout_p": dropout, "scale": 1.0}
        return functional.scaled_dot_product_attention(queries, scored[:, None], hidden[:, None], **options)[:, 0, 0]

    return pool


def forward(pool: Pool, *inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [pool(*inputs)]


def forward_and_backward(pool: Pool, *inputs: Tensor) -> list[Tensor]:
    context = pool(*inputs)
    return [context, *torch.autograd.grad(context.sum(), inputs)]


DIRECTIONS = {"forward": forward, "forward+backward": forward_and_backward}


def check(rows: Tensor, batch: Tensor, query: Tensor, lengths: Tensor, dropout: float, direction: str) -> None:
    """Compare serfast with plain PyTorch, which is given the mask that serfast draws for seed 1."""
    seeds = utterance_seeds(1, len(lengths))
    drop = None
    if dropout > 0:
        shapes = zip(seeds, lengths.tolist(), strict=True)
        drop = padded(torch.cat([dropout_mask(s, n, rows.shape[1], dropout).float() for s, n in shapes]), lengths).mul
    expected = DIRECTIONS[direction](eager(lengths, drop), batch, query)
    for result, truth in zip(DIRECTIONS[direction](fused(lengths, dropout), rows, query), expected, strict=True):
        shaped = padded(result, lengths) if result.shape == rows.shape else result
        torch.testing.assert_close(shaped, truth, rtol=1e-3, atol=1e-3)


def median_ms(work: Callable[[], object]) -> float:
    """Median of as many calls as fit RUN_S, after one to warm up."""
    work()
    times_ms: list[float] = []
    while len(times_ms) < LEAST_ROUNDS or (sum(times_ms) < 1000 * RUN_S and len(times_ms) < MOST_ROUNDS):
        start = time.perf_counter()
        work()
        times_ms.append(1000 * (time.perf_counter() - start))
    return statistics.median(times_ms)


def contenders(
    rows: Tensor, batch: Tensor, query: Tensor, lengths: Tensor, dropout: float, direction: str
) -> dict[str, Callable[[], object]]:
    run, written = DIRECTIONS[direction], torch.empty_like(rows)
    plain = eager(lengths, (lambda scaled: functional.dropout(scaled, dropout)) if dropout > 0 else None)
    compiled, attention, ours = torch.compile(plain), sdpa(lengths, dropout), fused(lengths, dropout)
    return {
        "serfast": lambda: run(ours, rows, query),
        "eager": lambda: run(plain, batch, query),
        "compile": lambda: run(compiled, batch, query),
        "sdpa": lambda: run(attention, batch, query),
        "read": lambda: rows.detach().amax(),
        "copy": lambda: written.copy_(rows.detach()),
    }


def measure(size: str, batch_kind: str, dropout: float, direction: str) -> dict[str, object]:
    n_utterances, n_units = SIZES[size]
    lengths, generator = batch_lengths(batch_kind, n_utterances), torch.Generator().manual_seed(1)
    rows = torch.randn(int(lengths.sum()), n_units, generator=generator, requires_grad=True)
    query = (torch.randn(n_units, generator=generator) / n_units**0.5).requires_grad_()
    batch = padded(rows.detach(), lengths).requires_grad_()
    check(rows, batch, query, lengths, dropout, direction)
    works = contenders(rows, batch, query, lengths, dropout, direction)
    times: Times = {name: [] for name in works}
    for _ in range(N_RUNS):
        for name, work in works.items():
            times[name].append(median_ms(work))
    floors = [
        read + (copy if direction != "forward" else 0) for read, copy in zip(times["read"], times["copy"], strict=True)
    ]
    ratios = {
        name: [round(peer / own, 2) for peer, own in zip(peers, times["serfast"], strict=True)]
        for name, peers in times.items()
        if name not in ("serfast", "read", "copy")
    }
    return {
        "workload": f"{n_utterances} x {n_units}, {batch_kind}, dropout {dropout}, {direction}",
        "valid_frames": len(rows),
        "padded_frames": batch.shape[0] * batch.shape[1],
        "median_ms": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "times_faster": ratios,
        "times_floor": [round(own / floor, 2) for own, floor in zip(times["serfast"], floors, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("choices", nargs="*", choices=[*SIZES, "grouped", "random", []], help="default: all")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args()
    sizes = [size for size in SIZES if size in arguments.choices] or list(SIZES)
    batches = [kind for kind in ("grouped", "random") if kind in arguments.choices] or ["grouped", "random"]
    results = []
    for size in sizes:
        for batch_kind in batches:
            for dropout in (0.0, 0.5):
                for direction in DIRECTIONS:
                    torch.compiler.reset()
                    results.append(measure(size, batch_kind, dropout, direction))
                    print(json.dumps(results[-1]), flush=True)
    if arguments.output is not None:
        ours = {"torch": torch.__version__, "cpu_capability": cpu_capability(), "threads": torch.get_num_threads()}
        found = {"machine": machine(), **ours, "results": results}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
