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


def test_exports_with_dynamic_rows():
    class Pool(torch.nn.Module):
        def forward(self, hidden, first_rows, lengths, query):
            return torch.ops.serfast.attention_pool(hidden, first_rows, lengths, query, None, None, None, 0)

    hidden, query, _ = (tensor.detach() for tensor in tensors())
    utterances = Lengths.packed(LENGTHS)
    rows, batch = torch.export.Dim("rows", min=2), torch.export.Dim("batch", min=2)
    program = torch.export.export(
        Pool(),
        (hidden, utterances.first_rows, utterances.on_device, query),
        dynamic_shapes=({0: rows}, {0: batch}, {0: batch}, None),
    )
    hidden, others = torch.randn(12, 5), Lengths.packed(torch.tensor([2, 4, 5, 1]))
    got = program.module()(hidden, others.first_rows, others.on_device, query)
    expected = attention_pool(hidden, others, query)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_door_exports():
    utterances = Lengths.packed(LENGTHS)

    class Pool(torch.nn.Module):
        def forward(self, hidden, query):
            return attention_pool(hidden, utterances, query)

    hidden, query, _ = (tensor.detach() for tensor in tensors())
    got = torch.export.export(Pool(), (hidden, query)).module()(hidden, query)
    assert all(torch.equal(a, b) for a, b in zip(got, attention_pool(hidden, LENGTHS, query), strict=True))


@pytest.mark.parametrize("score", ["query", "projected"])
def test_retained_graph_survives_an_error_and_gives_the_same_gradient_three_times(score):
    hidden, query, matrix = tensors()
    projection = matrix[:5].detach().requires_grad_() if score == "projected" else None
    options = {"dropout": 0.5, "training": True, "seed": 3}
    context, weights = attention_pool(hidden, LENGTHS, query, projection, **options)
    loss = context.square().sum() + weights.square().sum()
    leaves = [x for x in (hidden, query, projection) if x is not None]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    with pytest.raises(ValueError, match="lengths must sum to"):
        attention_pool(hidden, LENGTHS + 1, query, projection, **options)
    with pytest.raises(RuntimeError, match="shape"):
        torch.autograd.grad(loss, leaves, torch.ones(2), retain_graph=True)
    for _ in range(2):
        again = torch.autograd.grad(loss, leaves, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
    repeated = attention_pool(hidden, LENGTHS, query, projection, **options)
    assert torch.equal(repeated[0], context)
    assert torch.equal(repeated[1], weights)


@pytest.mark.parametrize("through", ["context", "weights", "both"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("needs", ["hidden", "query", "projection"])
def test_gradient_that_is_asked_for_alone_is_the_same(needs, dropout, through):
    hidden, query, matrix = tensors(dtype=torch.float64)
    leaves = {"hidden": hidden, "query": query, "projection": matrix[:5].detach().requires_grad_()}

    def gradients(wanted):
        given = {name: leaf if name in wanted else leaf.detach() for name, leaf in leaves.items()}
        context, weights = attention_pool(
            given["hidden"], LENGTHS, given["query"], given["projection"], dropout=dropout, training=True, seed=3
        )
        loss = {"context": context, "weights": weights, "both": context.sum() + weights}[through].square().sum()
        return dict(zip(wanted, torch.autograd.grad(loss, [given[name] for name in wanted]), strict=True))

    torch.testing.assert_close(gradients([needs])[needs], gradients(list(leaves))[needs])
