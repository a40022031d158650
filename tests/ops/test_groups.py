import pytest
import torch

from serfast.ops import Groups, Lengths, attention_pool, blstm
from serfast.ops.blstm import BLSTM_WEIGHTS

CPU = torch.device("cpu")
LENGTHS = Lengths.packed(torch.tensor([2, 3, 1]))
GROUP = torch.tensor([1, 0, 1])


def pooled(group: torch.Tensor | Groups) -> torch.Tensor:
    hidden = torch.arange(24.0).view(6, 4).sin()
    return attention_pool(hidden, LENGTHS, torch.arange(8.0).view(2, 4).cos(), group=group)[0]


def encoded(group: torch.Tensor | Groups) -> torch.Tensor:
    shapes = {"weight_ih": (2, 12, 4), "weight_hh": (2, 12, 3), "bias_ih": (2, 12), "bias_hh": (2, 12)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shapes[name.partition("_l0")[0]], generator=generator) for name in BLSTM_WEIGHTS}
    return blstm(torch.arange(24.0).view(6, 4).sin(), LENGTHS, weights, group=group)


@pytest.mark.parametrize("operator", [pooled, encoded])
def test_groups_made_beforehand_are_those_of_the_tensor(operator):
    found = operator(Groups.of(GROUP, 3, 2, CPU))
    assert torch.equal(found, operator(GROUP))
    assert not torch.equal(found, operator(torch.tensor([0, 0, 1])))


def test_groups_are_not_looked_at_again():
    groups = Groups.of(GROUP, 3, 2, CPU)
    assert Groups.of(groups, 3, 2, CPU) is groups


def test_groups_are_the_callers_no_more():
    group = GROUP.clone()
    groups = Groups.of(group, 3, 2, CPU)
    group.fill_(7)
    assert torch.equal(groups.groups, GROUP)
    assert torch.equal(groups.on_device, GROUP)


@pytest.mark.parametrize("operator", [pooled, encoded])
@pytest.mark.parametrize(
    ("n_utterances", "n_groups", "message"),
    [
        (2, 2, r"group must have shape \(3,\) to match lengths, got \(2,\)"),
        (3, 5, "group must be of 2 groups like the weights, got 5"),
    ],
)
def test_groups_of_another_batch_are_named(operator, n_utterances, n_groups, message):
    groups = Groups.of(GROUP[:n_utterances], n_utterances, n_groups, CPU)
    with pytest.raises(ValueError, match=message):
        operator(groups)


def test_groups_on_another_device_are_named():
    groups = Groups(GROUP, GROUP.to("meta"), 2)
    with pytest.raises(ValueError, match="group must be on cpu like the data, got meta"):
        pooled(groups)
