"""The segment network: from a short stretch of features to the scores of the emotions."""

from torch import Tensor, nn

from serfast.ops import linear

__all__ = ["SegmentNetwork"]


class SegmentNetwork(nn.Module):
    """Hidden layers of rectified units and a linear output layer.

    Args:
        n_inputs: numbers per segment, frames times features.
        n_emotions: classes.
        n_layers: hidden layers.
        n_units: units of each.

    Source: Han, Yu and Tashev (2014), section 2.2.
    """

    def __init__(self, n_inputs: int, n_emotions: int, *, n_layers: int = 3, n_units: int = 256) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for depth in range(n_layers):
            layers += [nn.Linear(n_units if depth > 0 else n_inputs, n_units), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(n_units, n_emotions))

    def forward(self, segments: Tensor) -> Tensor:
        """Logits (row, emotion) of segments (row, input); in evaluation, the same bits in any batch."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear) and not self.training:
                segments = linear(segments, layer.weight, layer.bias)
            else:
                segments = layer(segments)
        return segments
