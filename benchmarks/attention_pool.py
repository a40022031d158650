"""Attention pooling of a training batch: 32 utterances with EmoDB's durations at a 10 ms hop, 256 units, float32, CPU.

Peers are plain PyTorch on the padded batch, with its mask made beforehand: masked softmax and a product, and scaled dot
product attention, which has no dropout of this kind. Batches are random, or of neighbouring lengths as a careful
trainer would group them. Results are checked against each other before anything is timed.

Run: ``pytest benchmarks/attention_pool.py``. Each group is one workload; the figures in brackets are ratios in it.
"""

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn import functional

from serfast.ops import Lengths, attention_pool
from serfast.reference.attention_pool import dropout_mask, utterance_seeds

N_UTTERANCES, N_UNITS, DROPOUT = 32, 256, 0.5
Pool = Callable[[Tensor, Tensor], Tensor]


def corpus_lengths() -> Tensor:
    """Frames of 535 utterances, log-normal around 2.6 s between 1.2 s and 9 s, as EmoDB's are."""
    generator = torch.Generator().manual_seed(0)
    durations_s = torch.exp(0.38 * torch.randn(535, generator=generator)) * 2.6
    return (durations_s.clamp(1.2, 9.0) * 100).long()


def batch_lengths(batch: str) -> Tensor:
    """One batch, drawn at random or from the middle of the corpus sorted by length."""
    lengths = corpus_lengths()
    if batch == "grouped":
        middle = len(lengths) // 2
        return lengths.sort().values[middle : middle + N_UTTERANCES]
    return lengths[:N_UTTERANCES]


def padded(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows.split(lengths.tolist())), batch_first=True)


def fused(lengths: Tensor, dropout: float) -> Pool:
    utterances = Lengths.packed(lengths)
    options = {"dropout": dropout, "training": dropout > 0, "seed": 1}
    return lambda rows, query: attention_pool(rows, utterances, query, **options)[0]


def eager(lengths: Tensor, drop: Callable[[Tensor], Tensor] | None) -> Pool:
    is_padding = torch.arange(int(lengths.max())) >= lengths[:, None]

    def pool(hidden: Tensor, query: Tensor) -> Tensor:
        weights = torch.softmax((hidden @ query).masked_fill(is_padding, -torch.inf), dim=1)
        if drop is None:
            return torch.einsum("bt,btu->bu", weights, hidden)
        return drop(weights[..., None] * hidden).sum(dim=1)

    return pool


def sdpa(lengths: Tensor) -> Pool:
    is_frame = (torch.arange(int(lengths.max())) < lengths[:, None])[:, None, None]  # (batch, head, query, time)

    def pool(hidden: Tensor, query: Tensor) -> Tensor:
        heads = hidden[:, None]
        queries = query.expand(len(hidden), 1, 1, -1)
        return functional.scaled_dot_product_attention(queries, heads, heads, attn_mask=is_frame, scale=1.0)[:, 0, 0]

    return pool


def known_mask(lengths: Tensor) -> Tensor:
    """The mask that the fused pool draws for seed 1, padded."""
    seeds = utterance_seeds(1, len(lengths))
    masks = [dropout_mask(seed, n, N_UNITS, DROPOUT) for seed, n in zip(seeds, lengths.tolist(), strict=True)]
    return padded(torch.cat(masks).float(), lengths)


def forward(pool: Pool, hidden: Tensor, query: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [pool(hidden, query)]


def forward_and_backward(pool: Pool, hidden: Tensor, query: Tensor) -> list[Tensor]:
    context = pool(hidden, query)
    return [context, *torch.autograd.grad(context.sum(), (hidden, query))]


PASSES = {"forward": forward, "forward+backward": forward_and_backward}


@pytest.mark.parametrize("implementation", ["serfast", "eager", "sdpa"])
@pytest.mark.parametrize("dropout", [0.0, DROPOUT])
@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize("batch", ["grouped", "random"])
def test_attention_pool(
    benchmark: BenchmarkFixture, batch: str, direction: str, dropout: float, implementation: str
) -> None:
    if implementation == "sdpa" and dropout > 0:
        pytest.skip("scaled dot product attention drops weights, not elements")
    lengths, generator = batch_lengths(batch), torch.Generator().manual_seed(1)
    rows = torch.randn(int(lengths.sum()), N_UNITS, generator=generator, requires_grad=True)
    query = (torch.randn(N_UNITS, generator=generator) / N_UNITS**0.5).requires_grad_()
    batch_of_frames = padded(rows.detach(), lengths).requires_grad_()
    run = PASSES[direction]

    mask = known_mask(lengths) if dropout > 0 else None
    expected = run(eager(lengths, None if mask is None else mask.mul), batch_of_frames, query)
    if implementation == "serfast":
        pool, hidden = fused(lengths, dropout), rows
        results = run(pool, hidden, query)
    else:
        drop = None if mask is None else lambda scaled: functional.dropout(scaled, dropout)
        pool, hidden = sdpa(lengths) if implementation == "sdpa" else eager(lengths, drop), batch_of_frames
        results = expected if dropout > 0 else run(pool, hidden, query)
    for result, truth in zip(results, expected, strict=True):
        shaped = padded(result, lengths) if result.shape == rows.shape else result
        torch.testing.assert_close(shaped, truth, rtol=1e-4, atol=1e-4)

    benchmark.group = f"{direction}, dropout {dropout}, {batch} batch of {N_UTTERANCES} x {N_UNITS} units"
    benchmark.extra_info = {"rows": len(rows), "padded_rows": batch_of_frames.shape[0] * batch_of_frames.shape[1]}
    benchmark(run, pool, hidden, query)
