import pytest
import torch

from serfast.models import AttentionPool

LENGTHS = torch.tensor([4, 1, 90, 33, 17])


def make_pools(scoring: str, n_groups: int, **options: float) -> tuple[AttentionPool, list[AttentionPool]]:
    """A grouped pool, and ungrouped ones with the same weights."""
    torch.manual_seed(0)
    alone = [AttentionPool(6, scoring, **options) for _ in range(n_groups)]
    for pool in alone:
        torch.nn.init.normal_(pool.query)
    grouped = AttentionPool(6, scoring, n_groups=n_groups, **options)
    states = [pool.state_dict() for pool in alone]
    grouped.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})
    return grouped, alone


@pytest.mark.parametrize("group", [[0, 0, 1, 2, 2], [2, 0, 2, 1, 0]])
@pytest.mark.parametrize("scoring", ["eq8", "eq9"])
@torch.no_grad()
def test_a_group_is_a_pool_of_its_own_to_the_bit(scoring, group):
    grouped, alone = make_pools(scoring, 3)
    hidden, group = torch.randn(int(LENGTHS.sum()), 6), torch.tensor(group)
    context, weights = grouped.eval()(hidden, LENGTHS, group=group)
    group_of_row = group.repeat_interleave(LENGTHS)
    for member, pool in enumerate(alone):
        own = group_of_row == member
        expected = pool.eval()(hidden[own], LENGTHS[group == member])
        assert torch.equal(context[group == member], expected[0])
        assert torch.equal(weights[own], expected[1])


@pytest.mark.parametrize("scoring", ["eq8", "eq9"])
def test_a_group_is_trained_like_a_pool_of_its_own(scoring):
    grouped, alone = make_pools(scoring, 2, dropout=0.4)
    hidden, group, seeds = torch.randn(int(LENGTHS.sum()), 6), torch.tensor([1, 1, 0, 1, 0]), torch.arange(5)
    slopes = torch.randn(5, 6)
    (grouped(hidden, LENGTHS, seeds, group)[0] * slopes).sum().backward()
    for member, pool in enumerate(alone):
        mine = group == member
        rows = hidden[mine.repeat_interleave(LENGTHS)]
        (pool(rows, LENGTHS[mine], seeds[mine])[0] * slopes[mine]).sum().backward()
        for name, parameter in pool.named_parameters():
            torch.testing.assert_close(grouped.get_parameter(name).grad[member], parameter.grad)


def test_groups_start_as_pools_do():
    torch.manual_seed(0)
    projection = AttentionPool(40, "eq8", n_attention=30, n_groups=3).projection.detach()
    bound = AttentionPool(40, "eq8", n_attention=30).projection.detach().abs().max()
    assert projection.shape == (3, 30, 40)
    assert len({float(matrix.sum()) for matrix in projection}) == 3
    for matrix in projection:
        assert 0.95 * bound < matrix.abs().max() < 1.05 * bound


@pytest.mark.parametrize(
    ("scoring", "n_groups", "message"),
    [("eq9", 0, "n_groups must be at least 1, got 0"), ("mean", 2, "n_groups must be None for a mean, got 2")],
)
def test_groups_that_cannot_be_are_named(scoring, n_groups, message):
    with pytest.raises(ValueError, match=message):
        AttentionPool(6, scoring, n_groups=n_groups)


def test_utterances_must_name_their_group():
    grouped, (alone, _) = make_pools("eq9", 2)
    hidden = torch.zeros(int(LENGTHS.sum()), 6)
    with pytest.raises(ValueError, match=r"query must have shape \(6,\) to match hidden, got \(2, 6\)"):
        grouped(hidden, LENGTHS)
    with pytest.raises(ValueError, match=r"query must have shape \(group, 6\) to match hidden, got \(6,\)"):
        alone(hidden, LENGTHS, group=torch.zeros(5, dtype=torch.int64))
