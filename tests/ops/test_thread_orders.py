"""The CUDA kernels on the emulated device, with their threads in other orders."""

import pytest
import torch

from serfast.ops import BLSTM_WEIGHTS, attention_pool, blstm, linear


@pytest.mark.parametrize("capability", [8, 9])
def test_kernels_give_the_same_bits_in_every_order(emulated_cuda, run, capability):
    emulated_cuda.emulated_cuda_capability(capability)
    torch.manual_seed(0)
    lengths, group = torch.tensor([40, 1, 99, 7]), torch.tensor([1, 0, 1, 0])
    n_rows = int(lengths.sum())
    slopes = [torch.randn(4, 72), torch.randn(n_rows)]
    pooled = (torch.randn(n_rows, 72), lengths, torch.randn(2, 40), torch.randn(2, 40, 72), slopes)
    halves = (torch.randn(150, 100, dtype=torch.bfloat16), torch.randn(70, 100, dtype=torch.bfloat16))
    layer = dict(torch.nn.LSTM(28, 40, bidirectional=True).named_parameters())
    stacked = {name: torch.stack([layer[name].detach(), -layer[name].detach()]) for name in BLSTM_WEIGHTS}
    features = torch.randn(n_rows, 28)

    def everything():
        results = []
        for precision in ("high", "highest"):
            weights = {name: weight.clone().requires_grad_() for name, weight in stacked.items()}
            hidden = blstm(features, lengths, weights, group=group, precision=precision)
            results += [hidden, *torch.autograd.grad(hidden.square().sum(), list(weights.values()))]
        pool = run(attention_pool, *pooled, group=group, dropout=0.4, training=True, seed=3)
        return [*results, *pool, linear(*halves), linear(features, features[:65])]

    expected = everything()
    for schedule in range(1, 6):
        emulated_cuda.emulated_cuda_schedule(schedule)
        for result, truth in zip(everything(), expected, strict=True):
            assert torch.equal(result, truth)
