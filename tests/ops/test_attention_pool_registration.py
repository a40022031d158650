"""attention_pool as a registered operator: opcheck, torch.compile, second derivatives."""

import pytest
import torch

from serfast.ops import Lengths, attention_pool

LENGTHS = torch.tensor([1, 6, 3])


def tensors(n_units=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(10, n_units, generator=generator, dtype=dtype, requires_grad=True)
    query = torch.randn(n_units, generator=generator, dtype=dtype, requires_grad=True)
    projected = torch.randn(10, n_units, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, query, projected


@pytest.mark.parametrize("threshold", [0, 30000])
@pytest.mark.parametrize("score", ["uniform", "query", "projected"])
def test_opcheck(score, threshold):
    hidden, query, projected = tensors()
    utterances = Lengths.packed(LENGTHS)
    arguments = (
        hidden,
        utterances.first_rows,
        utterances.on_device,
        None if score == "uniform" else query,
        projected if score == "projected" else None,
        torch.tensor([1, 2, 3]) if threshold else None,
        None,
        threshold,
        utterances.max_length,
    )
    torch.library.opcheck(torch.ops.serfast.attention_pool.default, arguments)
    with torch.no_grad():
        context, weights = torch.ops.serfast.attention_pool(*arguments)
        needs = (True, score != "uniform", score == "projected")
        slopes = (torch.ones_like(context), torch.ones_like(weights))
        backward = (*slopes, *(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments[:7]))
        torch.library.opcheck(
            torch.ops.serfast.attention_pool_backward.default, (*backward, context, weights, *arguments[7:], *needs)
        )


def test_compiles_into_one_graph():
    hidden, query, _ = tensors()
    utterances = Lengths.packed(LENGTHS)

    def loss(hidden, query, lengths):
        context, weights = attention_pool(hidden, lengths, query, dropout=0.5, training=True, seed=7)
        return context.square().sum() + weights.square().sum()

    expected = torch.autograd.grad(loss(hidden, query, utterances), (hidden, query))
    compiled = torch.compile(loss, fullgraph=True)
    got = torch.autograd.grad(compiled(hidden, query, utterances), (hidden, query))
    for result, truth in zip(got, expected, strict=True):
        torch.testing.assert_close(result, truth)


def test_second_derivative_raises():
    hidden, query, _ = tensors()
    loss = attention_pool(hidden, LENGTHS, query)[0].square().sum()
    gradient = torch.autograd.grad(loss, hidden, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="attention_pool must be differentiated once"):
        gradient.sum().backward()


def test_changing_a_saved_result_raises():
    hidden, query, _ = tensors()
    context, weights = attention_pool(hidden, LENGTHS, query)
    with torch.no_grad():
        weights.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        context.sum().backward()


def test_activation_checkpoint_gives_the_same_gradient():
    hidden, query, _ = tensors()

    def pool(hidden, query):
        return attention_pool(hidden, LENGTHS, query, dropout=0.5, training=True)[0]

    torch.manual_seed(5)
    expected = torch.autograd.grad(pool(hidden, query).sum(), (hidden, query))
    torch.manual_seed(5)
    context = torch.utils.checkpoint.checkpoint(pool, hidden, query, use_reentrant=False)
    got = torch.autograd.grad(context.sum(), (hidden, query))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
