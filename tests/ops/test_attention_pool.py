"""attention_pool on the CPU: values, gradients, and what must never change them."""

import os
import subprocess
import sys

import pytest
import torch

from serfast.ops import Lengths, attention_pool, cpu_capability

LENGTHS = torch.tensor([1, 5, 16, 17, 33, 256, 257, 700])
SCORES = ["uniform", "query", "projection"]


def example(n_units, score, dtype=torch.float32, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(n_units)
    n_query = 19 if score == "projection" else n_units
    hidden = torch.randn(int(lengths.sum()), n_units, generator=generator, dtype=dtype)
    query = None if score == "uniform" else torch.randn(n_query, generator=generator, dtype=dtype) / n_query**0.5
    projection = torch.randn(n_query, n_units, generator=generator, dtype=dtype) / n_units**0.5
    slopes = [torch.randn(len(lengths), n_units, generator=generator, dtype=dtype)]
    slopes.append(torch.randn(len(hidden), generator=generator, dtype=dtype))
    if score == "uniform":
        slopes[1].zero_()  # uniform weights depend on nothing
    return hidden, lengths, query, projection if score == "projection" else None, slopes


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n_units", [1, 3, 28, 256, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_the_reference_within_the_error_budget(run, check, dtype, n_units, score, dropout):
    case = example(n_units, score, dtype)
    options = {"dropout": dropout, "training": dropout > 0, "seed": 11}
    check(run(attention_pool, *case, **options), *case, **options)


@pytest.mark.parametrize("score", SCORES)
def test_long_utterance_matches_the_reference_within_the_error_budget(run, check, score):
    case = example(28, score, lengths=torch.tensor([5000, 3, 4999]))
    check(run(attention_pool, *case), *case)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("score", SCORES)
def test_gradcheck(score, dropout):
    hidden, lengths, query, projection, _ = example(5, score, torch.float64, torch.tensor([1, 2, 7]))
    leaves = [tensor.requires_grad_() for tensor in (hidden, query, projection) if tensor is not None]

    def pool(hidden, query=None, projection=None):
        return attention_pool(hidden, lengths, query, projection, dropout=dropout, training=True, seed=3)

    assert torch.autograd.gradcheck(pool, leaves)


def padded(rows, lengths, n_frames, fill=0.0):
    batch = rows.new_full((len(lengths), n_frames, *rows.shape[1:]), fill)
    for b, frames in enumerate(rows.split(lengths.tolist())):
        batch[b, : len(frames)] = frames
    return batch


def packed(batch, lengths):
    return torch.cat([frames[:n] for frames, n in zip(batch, lengths.tolist(), strict=True)])


@pytest.mark.parametrize("fill", [0.0, float("nan")])
@pytest.mark.parametrize("score", ["uniform", "query"])
def test_padding_changes_nothing(run, score, fill):
    hidden, lengths, query, projection, slopes = example(28, score)
    options = {"dropout": 0.2, "training": True, "seed": 5}
    rows = run(attention_pool, hidden, lengths, query, projection, slopes, **options)
    n_frames = int(lengths.max()) + 3
    batch_slopes = [slopes[0], padded(slopes[1], lengths, n_frames)]
    batch = run(
        attention_pool, padded(hidden, lengths, n_frames, fill), lengths, query, projection, batch_slopes, **options
    )
    assert torch.equal(batch[0], rows[0])
    assert all(torch.equal(result, expected) for result, expected in zip(batch[3:], rows[3:], strict=True))
    for result, expected in zip(batch[1:3], rows[1:3], strict=True):
        assert torch.equal(result, padded(expected, lengths, n_frames))


@pytest.mark.parametrize("training", [False, True])
def test_padding_reaches_no_gradient_of_a_projection(run, training):
    hidden, lengths, query, projection, slopes = example(28, "projection")
    n_frames = int(lengths.max()) + 3
    batch, batch_slopes = padded(hidden, lengths, n_frames, float("nan")), padded(slopes[1], lengths, n_frames)
    rows = run(attention_pool, hidden, lengths, query, projection, slopes, training=training)
    got = run(attention_pool, batch, lengths, query, projection, [slopes[0], batch_slopes], training=training)
    torch.testing.assert_close(got[0], rows[0])
    torch.testing.assert_close(got[2], padded(rows[2], lengths, n_frames))
    for gradient, expected in zip(got[3:], rows[3:], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("score", ["uniform", "query"])
def test_utterance_has_the_same_bits_in_any_batch(run, score, n_threads):
    lengths = torch.cat([torch.tensor([1, 300, 17, 1000]), torch.arange(40, 67)])
    hidden, lengths, query, _, slopes = example(100, score, lengths=lengths)
    seeds = torch.arange(31) * 977
    before = torch.get_num_threads()

    def alone(indices):
        rows = [torch.cat([x.split(lengths.tolist())[i] for i in indices]) for x in (hidden, slopes[1])]
        options = {"dropout": 0.5, "training": True, "seed": seeds[indices]}
        return run(attention_pool, rows[0], lengths[indices], query, None, [slopes[0][indices], rows[1]], **options)

    try:
        torch.set_num_threads(2)
        together = alone(list(range(31)))
        torch.set_num_threads(n_threads)
        for indices in ([0], [1], [3], [30], [3, 1], [2, 0]):
            parts = alone(indices)
            assert torch.equal(parts[0], together[0][indices])
            for result, whole in zip(parts[1:3], together[1:3], strict=True):
                assert torch.equal(result, torch.cat([whole.split(lengths.tolist())[i] for i in indices]))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("score", ["uniform", "query"])
def test_nan_elsewhere_in_the_batch_changes_nothing(run, score):
    hidden, lengths, query, _, slopes = example(28, score)
    clean = run(attention_pool, hidden, lengths, query, None, slopes)
    spoilt_rows = slice(int(lengths[:3].sum()), int(lengths[:4].sum()))
    hidden[spoilt_rows] = float("nan")
    spoilt = run(attention_pool, hidden, lengths, query, None, slopes)
    for result, expected in zip(spoilt[1:3], clean[1:3], strict=True):
        keep = torch.ones(len(hidden), dtype=torch.bool)
        keep[spoilt_rows] = False
        assert torch.equal(result[keep], expected[keep])
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(spoilt[0][others], clean[0][others])
    assert spoilt[0][3].isnan().all()


def test_same_input_gives_the_same_bits_twice(run):
    case = example(256, "projection")
    for first, second in zip(run(attention_pool, *case), run(attention_pool, *case), strict=True):
        assert torch.equal(first, second)


def test_extreme_scores_do_not_overflow():
    hidden = torch.tensor([[1e4], [-1e4], [1e4], [9.9e3]])
    context, weights = attention_pool(hidden, torch.tensor([4]), torch.tensor([10.0]))
    assert torch.equal(weights, torch.tensor([0.5, 0.0, 0.5, 0.0]))
    assert torch.equal(context, torch.tensor([[1e4]]))


def test_non_contiguous_input_is_accepted(run):
    hidden, lengths, query, projection, slopes = example(28, "projection")
    expected = run(attention_pool, hidden, lengths, query, projection, slopes)
    sliced = torch.stack([hidden, hidden], dim=2)[:, :, 1]
    context, weights = attention_pool(sliced, lengths, torch.stack([query, query], 1)[:, 0], projection.T.clone().T)
    torch.testing.assert_close(context, expected[0])
    torch.testing.assert_close(weights, expected[1])


def test_query_alone_gets_the_gradient_when_hidden_is_frozen(run):
    hidden, lengths, query, _, slopes = example(28, "query")
    expected = run(attention_pool, hidden, lengths, query, None, slopes)
    query.requires_grad_()
    context, weights = attention_pool(hidden, lengths, query)
    ((context * slopes[0]).sum() + (weights * slopes[1]).sum()).backward()
    assert hidden.grad is None
    assert torch.equal(query.grad, expected[3])


def test_gradients_flow_through_either_result_alone(run):
    hidden, lengths, query, _, slopes = example(28, "query")
    both = run(attention_pool, hidden, lengths, query, None, slopes)
    hidden.requires_grad_()
    context, weights = attention_pool(hidden, lengths, query)
    through_context = torch.autograd.grad((context * slopes[0]).sum(), hidden, retain_graph=True)[0]
    through_weights = torch.autograd.grad((weights * slopes[1]).sum(), hidden)[0]
    torch.testing.assert_close(through_context + through_weights, both[2])


def test_backward_twice_gives_the_same_gradient():
    hidden, lengths, query, projection, _ = example(28, "projection")
    leaves = [tensor.requires_grad_() for tensor in (hidden, query, projection)]
    loss = attention_pool(hidden, lengths, query, projection, dropout=0.5, training=True, seed=1)[0].square().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_lengths_object_gives_the_same_as_a_tensor():
    hidden, lengths, query, _, _ = example(28, "query")
    expected = attention_pool(hidden, lengths, query)
    got = attention_pool(hidden, Lengths.packed(lengths), query)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_empty_slot_below_the_door_gives_a_zero_context():
    hidden = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    first_rows, lengths = torch.tensor([0, 2, 2]), torch.tensor([2, 0, 9])
    context, weights = torch.ops.serfast.attention_pool(hidden, first_rows, lengths, None, None, None, None, 0)
    assert torch.equal(context[1], torch.zeros(3))
    assert torch.equal(weights, torch.full((4,), 0.5))
    torch.testing.assert_close(context[2], hidden[2:].mean(0))


@pytest.mark.parametrize("level", ["generic", "avx2", "avx512"])
def test_each_instruction_set_matches_the_reference(level):
    levels = ["generic", "avx2", "avx512"]
    if levels.index(level) > levels.index(cpu_capability()):
        pytest.skip(f"this processor, or SERFAST_CPU_CAPABILITY, has no {level}")
    environment = os.environ | {"SERFAST_CPU_CAPABILITY": level, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "budget and (28 or 300) or gradcheck"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]
