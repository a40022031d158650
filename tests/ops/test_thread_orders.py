"""The CUDA kernels on the emulated device, with their threads in other orders."""

import pytest
import torch

from serfast.ops import BLSTM_WEIGHTS, attention_pool, blstm, linear


@pytest.mark.parametrize(("capability", "n_units"), [(8, 40), (9, 20), (9, 40), (9, 100), (9, 200)])
def test_kernels_give_the_same_bits_in_every_order(emulated_cuda, run, capability, n_units):
    emulated_cuda.emulated_cuda_capability(capability)
    torch.manual_seed(0)
    lengths, group = torch.tensor([9, 1, 21, 5]), torch.tensor([1, 0, 1, 0])
    slopes = [torch.randn(4, 72), torch.randn(147)]
    frames = torch.tensor([40, 1, 99, 7])
    pooled = (torch.randn(147, 72), frames, torch.randn(2, 40), torch.randn(2, 40, 72), slopes)
    halves = [
        (torch.randn(150, n_in, dtype=torch.bfloat16), torch.randn(70, n_in, dtype=torch.bfloat16))
        for n_in in (100, 104)  # loaded number by number, and in pieces that are not waited for
    ]
    layer = dict(torch.nn.LSTM(28, n_units, bidirectional=True).named_parameters())
    stacked = {name: torch.stack([layer[name].detach(), -layer[name].detach()]) for name in BLSTM_WEIGHTS}
    features = torch.randn(int(lengths.sum()), 28)

    def everything():
        results = []
        for precision in ("high", "highest"):
            weights = {name: weight.clone().requires_grad_() for name, weight in stacked.items()}
            hidden = blstm(features, lengths, weights, group=group, precision=precision)
            results += [hidden, *torch.autograd.grad(hidden.square().sum(), list(weights.values()))]
        pool = run(attention_pool, *pooled, group=group, dropout=0.4, training=True, seed=3)
        return [*results, *pool, *(linear(*pair) for pair in halves), linear(features, features)]

    expected = everything()
    for schedule in range(1, 6):
        emulated_cuda.emulated_cuda_schedule(schedule)
        for result, truth in zip(everything(), expected, strict=True):
            assert torch.equal(result, truth)
