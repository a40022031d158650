"""What tests of operators share: running one with gradients, and how far it may be from the reference."""

import pytest
import torch
from torch import Tensor

from serfast.reference.attention_pool import attention_pool, dropout_mask, utterance_seeds


@pytest.fixture(scope="session")
def run():
    """Run a pool and give its results and gradients."""
    return _run


@pytest.fixture(scope="session")
def check():
    """Compare the results of ``run`` on packed rows with the reference, within the error budget."""
    return _check


def _check(got: list[Tensor], hidden, lengths, query, projection, slopes, **options) -> None:
    """Float64 to 1e-10; below, max error <= 2 x that of plain PyTorch + 4 eps x the largest sum of absolute terms."""
    case = (hidden, lengths, query, projection, slopes)
    exact = _reference_in(torch.float64, *case, **options)
    if hidden.dtype == torch.float64:
        for result, truth in zip(got, exact, strict=True):
            torch.testing.assert_close(result.cpu(), truth, rtol=1e-10, atol=1e-11)
        return
    plain = _reference_in(hidden.dtype, *case, **options)
    terms = _absolute_terms(*case, **options)
    for index, (result, rival, truth, largest) in enumerate(zip(got, plain, exact, terms, strict=True)):
        budget = 2 * (rival.double() - truth).abs().max() + 4 * torch.finfo(result.dtype).eps * largest
        error = (result.cpu().double() - truth).abs().max()
        assert error <= budget, f"result {index} errs by {error:.2e}, more than {budget:.2e}"


def _run(pool, hidden, lengths, query, projection, slopes, **options) -> list[Tensor]:
    """Context, weights, and the gradients of hidden, query and projection for the slopes of both results."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (hidden, query, projection) if tensor is not None]
    arguments = iter(leaves)
    hidden, query, projection = (None if x is None else next(arguments) for x in (hidden, query, projection))
    context, weights = pool(hidden, lengths, query, projection, **options)
    loss = (context * slopes[0]).sum() + (weights * slopes[1]).sum()
    return [context.detach(), weights.detach(), *torch.autograd.grad(loss, leaves)]


def _reference_in(dtype, hidden, lengths, query, projection, slopes, **options) -> list[Tensor]:
    """The reference's results in one precision."""
    tensors = [None if x is None else x.to(dtype) for x in (hidden, query, projection)]
    return _run(attention_pool, tensors[0], lengths, *tensors[1:], [s.to(dtype) for s in slopes], **options)


def _absolute_terms(hidden, lengths, query, projection, slopes, *, dropout=0.0, training=False, seed=None):
    """The largest sum of absolute terms behind each result of ``_run`` on packed rows."""
    hidden, query, projection = (None if x is None else x.double() for x in (hidden, query, projection))
    _, weights = attention_pool(hidden, lengths, query, projection)
    largest = torch.zeros(3, dtype=torch.float64)
    n_query = hidden.shape[1] if projection is None else projection.shape[0]
    grad_query = torch.zeros(n_query, dtype=torch.float64)
    grad_projection = torch.zeros(n_query, hidden.shape[1], dtype=torch.float64)
    seeds = utterance_seeds(seed, len(lengths)) if training else [0] * len(lengths)
    first = 0
    for b, n in enumerate(lengths.tolist()):
        h, alpha = hidden[first : first + n].abs(), weights[first : first + n, None]
        mask = dropout_mask(seeds[b], *h.shape, dropout) if training else torch.ones_like(h)
        through_weight = slopes[1][first : first + n].double().abs()[:, None]
        slope = slopes[0][b].double().abs()
        r = (mask * h) @ slope[:, None] + through_weight
        grad_score = alpha * (r + (alpha * r).sum())
        grad_hidden, score = alpha * mask * slope, torch.zeros_like(alpha)
        if projection is not None:
            u = torch.tanh(hidden[first : first + n] @ projection.T).abs()
            grad_projected = grad_score * query.abs() * (1 - u**2)
            grad_hidden = grad_hidden + grad_projected @ projection.abs()
            grad_query += (grad_score * u).sum(0)
            grad_projection += grad_projected.T @ h
            score = u @ query.abs()[:, None]
        elif query is not None:
            grad_hidden = grad_hidden + grad_score * query.abs()
            grad_query += (grad_score * h).sum(0)
            score = h @ query.abs()[:, None]
        parts = ((alpha * mask * h).sum(0), alpha * (1 + score), grad_hidden)
        largest = torch.maximum(largest, torch.stack([part.max() for part in parts]))
        first += n
    terms = largest.tolist()
    if query is not None:
        terms.append(float(grad_query.max()))
    if projection is not None:
        terms.append(float(grad_projection.max()))
    return terms
