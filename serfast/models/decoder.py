"""The decoder: from a context vector to the scores of the emotions."""

from torch import Tensor, nn

from serfast.ops import linear

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """A linear output layer, behind one hidden layer of rectified units when ``n_hidden`` is above 0.

    Args:
        n_units: size of the context vector.
        n_emotions: classes.
        n_hidden: units of the hidden layer; 0 for none.
        dropout: share of the context vector, and of the hidden layer, that is dropped in training.
    """

    def __init__(self, n_units: int, n_emotions: int, n_hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        if n_hidden:
            layers += [nn.Linear(n_units, n_hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(n_hidden or n_units, n_emotions))

    def forward(self, context: Tensor) -> Tensor:
        """Logits (batch, emotion) of context vectors (batch, unit); in evaluation, the same bits in any batch."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear) and not self.training:
                context = linear(context, layer.weight, layer.bias)
            else:
                context = layer(context)
        return context
