"""attention_pool on CUDA, real or emulated: the reference's values, and what must never change them."""

import os

import pytest
import torch

from serfast.ops import Lengths, attention_pool

pytestmark = pytest.mark.usefixtures("full_precision_products")

LENGTHS = torch.tensor([1, 2, 65, 7, 700, 63, 32, 33, 64])
SCORES = ["uniform", "query", "projection"]


def example(n_units, score, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n_units)
    n_query = 19 if score == "projection" else n_units
    hidden = torch.randn(int(LENGTHS.sum()), n_units, generator=generator, dtype=dtype)
    query = None if score == "uniform" else torch.randn(n_query, generator=generator, dtype=dtype) / n_query**0.5
    projection = torch.randn(n_query, n_units, generator=generator, dtype=dtype) / n_units**0.5
    slopes = [torch.randn(len(LENGTHS), n_units, generator=generator, dtype=dtype)]
    slopes.append(torch.randn(len(hidden), generator=generator, dtype=dtype) * (score != "uniform"))
    return hidden, LENGTHS, query, projection if score == "projection" else None, slopes


def on(device, hidden, lengths, query, projection, slopes):
    tensors = [None if x is None else x.to(device) for x in (hidden, query, projection)]
    return tensors[0], lengths, *tensors[1:], [slope.to(device) for slope in slopes]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n_units", [1, 28, 100, 256, 300, 512, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_matches_the_reference_within_the_error_budget(run, check, device, dtype, n_units, score, dropout):
    case = example(n_units, score, dtype)
    options = {"dropout": dropout, "training": dropout > 0, "seed": 11}
    check(run(attention_pool, *on(device, *case), **options), *case, **options)


@pytest.mark.parametrize("score", SCORES)
def test_padding_changes_nothing(device, score):
    hidden, lengths, query, projection, _ = on(device, *example(28, score))
    context, weights = attention_pool(hidden, lengths, query, projection)
    batch = hidden.new_full((len(lengths), 703, 28), float("nan"))
    for b, frames in enumerate(hidden.split(lengths.tolist())):
        batch[b, : len(frames)] = frames
    batch.requires_grad_()
    padded_context, padded_weights = attention_pool(batch, lengths, query, projection)
    padded_context.sum().backward()
    torch.testing.assert_close(padded_context, context, rtol=0 if projection is None else 1e-5, atol=1e-6)
    for b, n in enumerate(lengths.tolist()):
        assert not padded_weights[b, n:].any()
        if projection is None:
            assert not batch.grad[b, n:].any()
    assert torch.isfinite(padded_weights).all()
    assert torch.equal(torch.cat([w[:n] for w, n in zip(padded_weights, lengths, strict=True)]) > 0, weights > 0)


@pytest.mark.parametrize("score", ["uniform", "query"])
@pytest.mark.parametrize("n_units", [28, 100, 256, 512, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_utterance_has_the_same_bits_alone(run, device, dtype, n_units, score):
    hidden, lengths, query, _, slopes = on(device, *example(n_units, score, dtype))
    seeds = torch.arange(len(lengths)) * 977
    options = {"dropout": 0.5, "training": True}
    together = run(attention_pool, hidden, lengths, query, None, slopes, seed=seeds, **options)
    first = 0
    for b, n in enumerate(lengths.tolist()):
        rows = slice(first, first + n)
        own = [slopes[0][b : b + 1], slopes[1][rows]]
        alone = run(
            attention_pool, hidden[rows], lengths[b : b + 1], query, None, own, seed=seeds[b : b + 1], **options
        )
        assert torch.equal(alone[0][0], together[0][b])
        assert all(torch.equal(alone[i], together[i][rows]) for i in (1, 2))
        first += n


@torch.no_grad()
@pytest.mark.parametrize("n_units", [28, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_utterance_has_the_same_bits_alone_by_eq_8_in_evaluation(device, dtype, n_units):
    hidden, lengths, query, projection, _ = on(device, *example(n_units, "projection", dtype))
    context, weights = attention_pool(hidden, lengths, query, projection)
    pieces = zip(hidden.split(lengths.tolist()), weights.split(lengths.tolist()), context, lengths, strict=True)
    for rows, own_weights, own_context, n in pieces:
        alone = attention_pool(rows, n[None], query, projection)
        assert torch.equal(alone[0][0], own_context)
        assert torch.equal(alone[1], own_weights)


@torch.no_grad()
@pytest.mark.parametrize("n_units", [28, 256, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_that_start_off_a_boundary_give_the_same_bits(device, dtype, n_units):
    hidden, lengths, query, _, _ = on(device, *example(n_units, "query", dtype))
    moved = torch.empty(hidden.numel() + 1, dtype=dtype, device=device)[1:].view_as(hidden).copy_(hidden)
    assert moved.data_ptr() % 16 != 0
    expected = attention_pool(hidden, lengths, query)
    for result, truth in zip(attention_pool(moved, lengths, query), expected, strict=True):
        assert torch.equal(result, truth)


def test_same_input_gives_the_same_bits_twice(run, device):
    case = on(device, *example(256, "projection"))
    for first, second in zip(run(attention_pool, *case), run(attention_pool, *case), strict=True):
        assert torch.equal(first, second)


@pytest.mark.cuda
@pytest.mark.parametrize("threshold", [0, 32768])
def test_one_captured_graph_serves_three_sets_of_lengths(cuda, threshold):
    hidden, lengths, query, _, slopes = on(cuda, *example(64, "query"))
    utterances, seeds = Lengths.packed(lengths, device=hidden.device), torch.arange(len(lengths), device=cuda)
    arguments = (hidden, utterances.first_rows, utterances.on_device, query, None, seeds, None)

    def forward_and_backward(*arguments):
        pool, backward = torch.ops.serfast.attention_pool, torch.ops.serfast.attention_pool_backward
        context, weights = pool(*arguments, threshold)
        needs = (True, True, False)
        gradients = backward(*slopes, *arguments, context, weights, threshold, *needs)
        return [context, weights, *gradients[:2]]

    forward_and_backward(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = forward_and_backward(*arguments)
    for others in (lengths, lengths.flip(0), torch.tensor([500, 1, 1, 2, 0, 400, 3, 30, 30])):
        first_rows = others.cumsum(0) - others
        utterances.first_rows.copy_(first_rows)
        utterances.on_device.copy_(others)
        graph.replay()
        expected = forward_and_backward(hidden, first_rows.to(cuda), others.to(cuda), query, None, seeds, None)
        assert all(torch.equal(result, truth) for result, truth in zip(got, expected, strict=True))


@pytest.mark.parametrize("score", SCORES)
def test_rows_of_no_utterance_get_zero_weights_and_gradients(device, score):
    hidden, _, query, projection, _ = on(device, *example(28, score))
    first_rows, lengths = torch.tensor([5, 40, 300], device=device), torch.tensor([31, 0, 130], device=device)
    projected = None if projection is None else hidden @ projection.T
    arguments = (hidden, first_rows, lengths, query, projected, None, None)
    context, weights = torch.ops.serfast.attention_pool(*arguments, 0)
    needs = (True, query is not None, projected is not None)
    backward = torch.ops.serfast.attention_pool_backward
    grad_hidden, _, grad_projected = backward(torch.ones_like(context), None, *arguments, context, weights, 0, *needs)
    is_frame = torch.zeros(len(hidden), dtype=torch.bool, device=device)
    is_frame[5:36] = is_frame[300:430] = True
    assert not context[1].any()
    for result in (weights[:, None], grad_hidden, *([] if projected is None else [grad_projected])):
        assert not result[~is_frame].any()
        assert result[is_frame].any(dim=1).all()


def test_opcheck(device):
    hidden, lengths, query, _, _ = on(device, *example(28, "query"))
    utterances = Lengths.packed(lengths, device=hidden.device)
    seeds = torch.arange(len(lengths), device=hidden.device)
    arguments = (hidden.requires_grad_(), utterances.first_rows, utterances.on_device, query.requires_grad_(), None)
    torch.library.opcheck(torch.ops.serfast.attention_pool.default, (*arguments, seeds, None, 30000))


@pytest.mark.parametrize("score", ["query", "projection"])
def test_group_matches_the_cpu(run, device, score):
    hidden, lengths, query, projection, slopes = example(40, score)
    group = torch.tensor([0, 0, 2, 1, 1, 2, 0, 0, 1])
    query = torch.stack([query, query.flip(0), query * 2])
    projection = None if projection is None else torch.stack([projection, projection.flip(0), projection * 0.5])
    case, options = (hidden, lengths, query, projection, slopes), {"dropout": 0.2, "training": True, "seed": 4}
    expected = run(attention_pool, *case, group=group, **options)
    got = run(attention_pool, *on(device, *case), group=group, **options)
    for result, truth in zip(got, expected, strict=True):
        torch.testing.assert_close(result.cpu(), truth, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(os.environ.get("SERFAST_LARGE_TESTS") != "1", reason="needs 10 GB: set SERFAST_LARGE_TESTS=1")
def test_more_than_two_to_the_31_elements(cuda):
    lengths = torch.tensor([4_100_000, 3, 200_000])
    hidden = torch.randn(int(lengths.sum()), 512, device=cuda, dtype=torch.bfloat16)
    assert hidden.numel() > 2**31
    query = torch.randn(512, device=cuda) / 512**0.5
    context, weights = attention_pool(hidden, lengths, query)
    tail = hidden[-200_000:]
    alone = attention_pool(tail, lengths[2:], query)
    assert torch.equal(context[2], alone[0][0])
    assert torch.equal(weights[-200_000:], alone[1])
