"""What blstm keeps for its backward pass, and what that pass needs besides."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from serfast.ops import BLSTM_WEIGHTS, Lengths, blstm

LENGTHS = torch.tensor([9000, 1, 7000, 3999])
N_UNITS = 32
STATE_BYTES = 4 * int(LENGTHS.sum()) * N_UNITS  # of one number per row and unit of one direction
GATES, CELLS, HIDDEN = 8, 2, 2  # of both directions, in states
SLACK_BYTES = STATE_BYTES // 2  # for what does not grow with the rows


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of results that are alive, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        given = {place for place, _ in _memories((args, kwargs))}
        for place, memory in _memories(results):
            if place not in self._known | given:
                self._known.add(place)
                self.now += memory.nbytes()
                weakref.finalize(memory, self._free, place, memory.nbytes())
        self.most = max(self.most, self.now)
        return results

    def _free(self, place: int, n_bytes: int) -> None:
        self._known.remove(place)
        self.now -= n_bytes


def _memories(tree: object) -> list[tuple[int, torch.UntypedStorage]]:
    memories = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return [(memory._cdata, memory) for memory in memories]


def layer_weights(n_features: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights = dict(nn.LSTM(n_features, N_UNITS, bidirectional=True).named_parameters())
    return {name: weights[name].detach().requires_grad_() for name in BLSTM_WEIGHTS}


def test_counted_bytes_are_those_alive():
    with LiveBytes() as live:
        first = torch.zeros(100)
        second = first.view(10, 10) + 1
        del second
        assert (live.now, live.most) == (400, 800)
        del first
        assert (live.now, live.most) == (0, 800)


@pytest.mark.parametrize("n_groups", [None, 2])
def test_both_passes_need_the_memory_that_they_must(n_groups: int | None):
    weights, rows = layer_weights(5), torch.randn(int(LENGTHS.sum()), 5)
    group = None
    if n_groups is not None:
        weights = {name: torch.stack([weight.detach()] * n_groups).requires_grad_() for name, weight in weights.items()}
        group = torch.tensor([0, 0, 1, 1])
    with LiveBytes() as live:
        hidden = blstm(rows, LENGTHS, weights, group=group)
        assert live.now <= (GATES + CELLS + HIDDEN) * STATE_BYTES + SLACK_BYTES
        slopes, live.most = torch.ones_like(hidden), 0
        before = live.now
        torch.autograd.grad(hidden, list(weights.values()), slopes)
    # The slopes of the gates, and the states before each frame in one direction.
    assert live.most - before <= (GATES + 1) * STATE_BYTES + SLACK_BYTES


def test_saved_tensors_survive_a_second_backward_and_checkpointing():
    weights, rows = layer_weights(5), torch.randn(13, 5, requires_grad=True)
    hidden = blstm(rows, torch.tensor([9, 4]), weights)
    first = torch.autograd.grad(hidden.sum(), rows, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(hidden.sum(), rows)[0])
    again = checkpoint(blstm, rows, torch.tensor([9, 4]), weights, use_reentrant=False)
    assert torch.equal(first, torch.autograd.grad(again.sum(), rows)[0])


@torch.no_grad()
def test_inference_saves_nothing():
    batch = Lengths.packed(torch.tensor([3, 2]))
    _, cell, gates = torch.ops.serfast.blstm_recurrence(
        torch.randn(5, 128), torch.randn(1, 2, 64, 16), batch.first_rows, batch.on_device, None, None, 0, False, False
    )
    assert cell.numel() == gates.numel() == 0
