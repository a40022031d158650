"""The dropout of attention_pool: its random numbers, its rate, its seeds."""

import numpy as np
import pytest
import torch

from serfast.ops import attention_pool
from serfast.reference.attention_pool import dropout_mask, philox, utterance_seeds


def mask_of(n_frames, n_units, dropout, seed):
    """The mask the kernel used, read from the gradient of a uniform pool of one utterance."""
    hidden = torch.ones(n_frames, n_units, dtype=torch.float64, requires_grad=True)
    context, _ = attention_pool(hidden, torch.tensor([n_frames]), None, dropout=dropout, training=True, seed=seed)
    return torch.autograd.grad(context.sum(), hidden)[0] * n_frames


# Known answers published with Random123 (kat_vectors, philox4x32-10).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    counter, key, expected = (
        np.array([int(word, 16) for word in words.split()], dtype=np.uint64) for words in (counter, key, expected)
    )
    assert np.array_equal(philox(counter, key), expected)


@pytest.mark.parametrize("n_units", [1, 7, 64, 100, 256, 300])
@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
def test_mask_is_that_of_the_reference(n_units, seed):
    mask = mask_of(300, n_units, 0.3, torch.tensor([seed]))
    torch.testing.assert_close(mask, dropout_mask(seed % 2**64, 300, n_units, 0.3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_rate_and_mean_are_right(dropout):
    mask = mask_of(2000, 256, dropout, 17)
    deviation = (dropout * (1 - dropout) / mask.numel()) ** 0.5
    assert abs(float((mask == 0).double().mean()) - dropout) < 4 * deviation
    assert abs(float(mask.mean()) - 1) < 4 * deviation / (1 - dropout)


def test_masks_of_neighbouring_frames_units_and_utterances_are_independent():
    kept = torch.stack([(mask_of(500, 256, 0.5, seed) > 0).double() - 0.5 for seed in (1, 2)])
    for one, other in (
        (kept[0, :-1], kept[0, 1:]),
        (kept[0, :, :-1], kept[0, :, 1:]),
        (kept[0, :, :-8], kept[0, :, 8:]),
        (kept[0], kept[1]),
    ):
        assert abs(float((one * other).mean()) * 4) < 4 / one.numel() ** 0.5


def test_forward_and_backward_use_the_same_mask():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 30, generator=generator, dtype=torch.float64, requires_grad=True)
    context, _ = attention_pool(hidden, torch.tensor([40]), None, dropout=0.5, training=True, seed=9)
    grad_hidden = torch.autograd.grad(context.sum(), hidden)[0]
    torch.testing.assert_close((grad_hidden * hidden).sum(0, keepdim=True), context)


def test_nothing_is_dropped_outside_training_or_at_rate_zero():
    hidden = torch.randn(9, 20, generator=torch.Generator().manual_seed(0))
    expected = attention_pool(hidden, torch.tensor([4, 5]), None)
    for options in ({"dropout": 0.5}, {"training": True}, {"dropout": 1e-6, "training": True}):
        got = attention_pool(hidden, torch.tensor([4, 5]), None, **options)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_one_seed_is_mixed_with_the_position():
    hidden = torch.ones(20, 64)
    options = {"dropout": 0.5, "training": True}
    context, _ = attention_pool(hidden, torch.tensor([10, 10]), None, seed=4, **options)
    assert not torch.equal(context[0], context[1])
    seeds = [seed - 2**64 if seed >= 2**63 else seed for seed in utterance_seeds(4, 2)]
    for seed in (torch.tensor(4), torch.tensor(seeds)):
        assert torch.equal(attention_pool(hidden, torch.tensor([10, 10]), None, seed=seed, **options)[0], context)


def test_without_a_seed_the_default_generator_decides():
    hidden, options = torch.ones(20, 64), {"dropout": 0.5, "training": True}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = (attention_pool(hidden, torch.tensor([20]), None, **options)[0] for _ in range(2))
        torch.manual_seed(3)
        again = attention_pool(hidden, torch.tensor([20]), None, **options)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
