import torch
from torch.nn import functional

from serfast.models import DenoisingLayer, StackedAutoencoder


def frames(n_rows: int = 50, n_features: int = 12) -> torch.Tensor:
    return torch.randn(n_rows, n_features, generator=torch.Generator().manual_seed(0))


def test_codes_and_frames_follow_the_equations():
    torch.manual_seed(1)
    stack = StackedAutoencoder(12, [7, 3], corruption=0.4).double().eval()
    rows = frames().double()
    first, second = stack.layers
    below = functional.softsign(functional.linear(rows, first.encoder.weight, first.encoder.bias))
    codes = functional.softsign(functional.linear(below, second.encoder.weight, second.encoder.bias))
    torch.testing.assert_close(stack.encode(rows, depth=1), below)
    torch.testing.assert_close(stack.encode(rows), codes)
    torch.testing.assert_close(second(below), functional.linear(codes, second.decoder.weight, second.decoder.bias))
    torch.testing.assert_close(stack.decode(codes), first.decode(second.decode(codes)))
    assert stack.decode(codes).shape == rows.shape


def test_no_layer_is_an_encoder_of_none():
    stack, rows = StackedAutoencoder(12, [7], corruption=0.0).eval(), frames()
    assert torch.equal(stack.encode(rows, depth=0), rows)


def test_a_share_of_the_frame_is_dropped_in_training_only():
    layer, ones = DenoisingLayer(1000, 1000, corruption=0.25), torch.ones(1, 1000)
    with torch.no_grad():
        layer.encoder.weight.copy_(torch.eye(1000))
        layer.encoder.bias.zero_()
    torch.manual_seed(0)
    codes = layer.train().encode(ones)
    kept = codes != 0
    assert 0.7 < kept.double().mean() < 0.8
    torch.testing.assert_close(codes[kept], functional.softsign(torch.full_like(codes[kept], 1 / 0.75)))
    torch.testing.assert_close(layer.eval().encode(ones), torch.full_like(ones, 0.5))


def test_a_frame_has_the_same_code_in_any_batch():
    torch.manual_seed(2)
    stack, rows = StackedAutoencoder(12, [9, 5], corruption=0.4).eval(), frames()
    together = stack.encode(rows)
    for first, last in ((0, 1), (3, 4), (7, 26), (13, 50)):
        assert torch.equal(stack.encode(rows[first:last]), together[first:last])
