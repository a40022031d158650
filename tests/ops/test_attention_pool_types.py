"""attention_pool in half precision, under autocast, and with a query for every group."""

import os
import re

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from serfast.ops import Lengths, attention_pool

LENGTHS = torch.tensor([1, 5, 16, 300, 33, 70])
HALVES = [torch.bfloat16, torch.float16]
SCORES = ["uniform", "query", "projection"]


def example(score, dtype, n_units=28, parameter_dtype=None, n_groups=0):
    generator = torch.Generator().manual_seed(n_units)
    n_query, lead = 19 if score == "projection" else n_units, (n_groups,) if n_groups else ()
    hidden = torch.randn(int(LENGTHS.sum()), n_units, generator=generator).to(dtype)
    query = torch.randn(*lead, n_query, generator=generator).to(parameter_dtype or dtype) / n_query**0.5
    projection = torch.randn(*lead, n_query, n_units, generator=generator).to(parameter_dtype or dtype) / n_units**0.5
    slopes = [torch.randn(len(LENGTHS), n_units, generator=generator).to(dtype), torch.randn(len(hidden))]
    slopes[1] *= score != "uniform"
    return (
        hidden,
        LENGTHS,
        None if score == "uniform" else query,
        projection if score == "projection" else None,
        slopes,
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n_units", [1, 28, 256, 300])
@pytest.mark.parametrize("dtype", HALVES)
def test_matches_the_reference_within_the_error_budget(run, check, dtype, n_units, score, dropout):
    case = example(score, dtype, n_units)
    options = {"dropout": dropout, "training": True, "seed": 11}
    got = run(attention_pool, *case, **options)
    assert got[0].dtype == dtype
    assert got[1].dtype == torch.float32
    check(got, *case, **options)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_hidden_is_summed_in_float32(run, dtype, score):
    hidden, lengths, query, projection, slopes = example(score, dtype)
    wide = [None if x is None else x.float() for x in (hidden, query, projection)]
    expected = run(attention_pool, wide[0], lengths, *wide[1:], [slope.float() for slope in slopes])
    got = run(attention_pool, hidden, lengths, query, projection, slopes)
    if projection is None:  # the same bits, rounded once
        assert torch.equal(got[1], expected[1])
        assert torch.equal(got[0], expected[0].to(dtype))
        assert torch.equal(got[2], expected[2].to(dtype))
    torch.testing.assert_close(got[1], expected[1], rtol=3e-2, atol=1e-3)


@pytest.mark.parametrize("score", ["query", "projection"])
@pytest.mark.parametrize("dtype", HALVES)
def test_float32_parameters_beside_half_hidden_get_float32_gradients(run, dtype, score):
    hidden, lengths, query, projection, slopes = example(score, dtype, parameter_dtype=torch.float32)
    got = run(attention_pool, hidden, lengths, query, projection, slopes)
    assert [result.dtype for result in got[:3]] == [dtype, torch.float32, dtype]
    assert all(gradient.dtype == torch.float32 for gradient in got[3:])


def test_special_halves_survive():
    for dtype in HALVES:
        tiny = torch.finfo(dtype).smallest_normal
        values = torch.tensor([0.0, -0.0, tiny, tiny / 2, -tiny / 4, torch.finfo(dtype).max, -1.5]).to(dtype)
        context, _ = attention_pool(values[:, None].expand(7, 40), torch.ones(7, dtype=torch.int64), None)
        assert torch.equal(context, values[:, None].expand(7, 40))
        infinite = torch.full((1, 3), float("inf"), dtype=dtype)
        assert torch.equal(attention_pool(infinite, torch.tensor([1]), None)[0], infinite)
        assert attention_pool(infinite * float("nan"), torch.tensor([1]), None)[0].isnan().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_no_type(hidden_dtype, score, training):
    hidden, lengths, query, projection, _ = example(score, hidden_dtype, parameter_dtype=torch.float32)
    hidden.requires_grad_()
    plain = attention_pool(hidden, lengths, query, projection, training=training)
    with torch.autocast("cpu", torch.bfloat16):
        context, weights = attention_pool(hidden, lengths, query, projection, training=training)
    assert (context.dtype, weights.dtype) == (hidden_dtype, torch.float32)
    if not (training and score == "projection"):
        assert torch.equal(context, plain[0])
        assert torch.equal(weights, plain[1])
    context.float().sum().backward()
    assert hidden.grad.dtype == hidden_dtype


@pytest.mark.parametrize("group", [[0, 0, 0, 1, 1, 2], [2, 0, 1, 0, 2, 2], [1, 1, 1, 1, 1, 1]])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("score", ["query", "projection"])
def test_group_is_the_same_as_one_call_per_group(run, score, training, group):
    hidden, lengths, query, projection, slopes = example(score, torch.float64, n_groups=3)
    seeds, group = torch.arange(len(lengths)), torch.tensor(group)
    options = {"dropout": 0.4, "training": training}
    got = run(attention_pool, hidden, lengths, query, projection, slopes, seed=seeds, group=group, **options)
    row_group = group.repeat_interleave(lengths)
    for index in range(3):
        own, rows = group == index, row_group == index
        if not own.any():
            assert not any(gradient[index].any() for gradient in got[3:])
            continue
        part = [slopes[0][own], slopes[1][rows]]
        matrix = None if projection is None else projection[index]
        alone = run(attention_pool, hidden[rows], lengths[own], query[index], matrix, part, seed=seeds[own], **options)
        parts = [got[0][own], got[1][rows], got[2][rows], *(gradient[index] for gradient in got[3:])]
        for result, expected in zip(parts, alone, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-11)


def test_group_works_padded():
    hidden, lengths, query, projection, _ = example("projection", torch.float32, n_groups=2)
    group = torch.tensor([0, 1, 1, 0, 0, 1])
    expected, _ = attention_pool(hidden, lengths, query, projection, group=group)
    padded = torch.nn.utils.rnn.pad_sequence(list(hidden.split(lengths.tolist())), batch_first=True)
    assert torch.equal(attention_pool(padded, lengths, query, projection, group=group)[0], expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("score", ["query", "projection"])
def test_group_compiles_into_one_graph_for_any_groups(score, training):
    hidden, lengths, query, projection, slopes = example(score, torch.float32, n_groups=2)
    utterances = Lengths.packed(lengths)
    leaves = [tensor.requires_grad_() for tensor in (hidden, query, projection) if tensor is not None]

    def loss(hidden, query, projection, group):
        options = {"dropout": 0.3, "training": training, "seed": 7, "group": group}
        context, weights = attention_pool(hidden, utterances, query, projection, **options)
        return (context * slopes[0]).sum() + (weights * slopes[1]).sum()

    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for groups in ([0, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]):
        group = torch.tensor(groups)
        got, expected = (torch.autograd.grad(f(hidden, query, projection, group), leaves) for f in (compiled, loss))
        for gradient, truth in zip(got, expected, strict=True):
            torch.testing.assert_close(gradient, truth)
    assert backend.frame_count == 1


@pytest.mark.parametrize(
    ("error", "message", "query", "projection", "group"),
    [
        (
            TypeError,
            "group must be an int64 tensor or Groups, got torch.int32",
            (2, 4),
            None,
            torch.zeros(2, dtype=torch.int32),
        ),
        (ValueError, "group must have shape (2,) to match lengths, got (3,)", (2, 4), None, torch.tensor([0, 0, 1])),
        (ValueError, "group must be on the CPU, got meta", (2, 4), None, torch.tensor([0, 1], device="meta")),
        (ValueError, "group must be at least 0 and below 2, the groups there are, got 2", (2, 4), None, (0, 2)),
        (ValueError, "group must be at least 0 and below 2, the groups there are, got -1", (2, 4), None, (-1, 1)),
        (ValueError, "group must be None when query is None, got a group without a query", None, None, (0, 1)),
        (ValueError, "query must have shape (group, 4) to match hidden, got (4,)", (4,), None, (0, 1)),
        (ValueError, "projection must have shape (2, n_attention, 4) to match", (2, 7), (7, 4), (0, 1)),
        (ValueError, "query must have shape (4,) to match hidden, got (2, 4)", (2, 4), None, None),
    ],
)
def test_misused_group_is_named(error, message, query, projection, group):
    query, projection = (None if shape is None else torch.zeros(shape) for shape in (query, projection))
    group = torch.tensor(group) if isinstance(group, tuple) else group
    with pytest.raises(error, match=re.escape(message)):
        attention_pool(torch.zeros(5, 4), torch.tensor([2, 3]), query, projection, group=group)


@pytest.mark.skipif(os.environ.get("SERFAST_LARGE_TESTS") != "1", reason="needs 10 GB: set SERFAST_LARGE_TESTS=1")
def test_more_than_two_to_the_31_elements():
    lengths = torch.tensor([4_100_000, 3, 200_000])
    hidden = torch.zeros(int(lengths.sum()), 512, dtype=torch.bfloat16)
    hidden[-200_000:].normal_(generator=torch.Generator().manual_seed(0))
    query = torch.ones(512) / 512
    context, weights = attention_pool(hidden, lengths, query)
    alone = attention_pool(hidden[-200_000:], lengths[2:], query)
    assert torch.equal(context[2], alone[0][0])
    assert torch.equal(weights[-200_000:], alone[1])
    assert not context[:2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_units", [256, 250])
def test_a_gradient_larger_than_the_caches_has_the_bits_of_its_parts(dtype: torch.dtype, n_units: int):
    lengths = torch.full((20,), 900)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(int(lengths.sum()), n_units, generator=generator).to(dtype).requires_grad_()
    query, slopes = torch.randn(n_units, generator=generator), torch.randn(20, n_units, generator=generator).to(dtype)
    query = query.to(torch.promote_types(dtype, torch.float32))

    def gradient(hidden: torch.Tensor, lengths: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(attention_pool(hidden, lengths, query)[0], hidden, slopes)[0]

    together = gradient(hidden, lengths, slopes).split(900)
    assert together[0].numel() * 20 * hidden.element_size() >= 8 << 20
    for place, own in enumerate(hidden.detach().split(900)):
        alone = gradient(own.requires_grad_(), lengths[:1], slopes[place : place + 1])
        assert torch.equal(together[place], alone)
