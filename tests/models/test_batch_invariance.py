"""What evaluation promises: pooling and decoder give an utterance the same bits alone and in any batch."""

import pytest
import torch

from serfast.models import AttentionPool, Decoder

N_UNITS, N_UTTERANCES = 96, 256


def utterances():
    generator = torch.Generator().manual_seed(0)
    lengths = (60 * torch.exp(0.6 * torch.randn(N_UTTERANCES, generator=generator))).long().clamp(1, 700)
    return list(torch.randn(int(lengths.sum()), N_UNITS, generator=generator).split(lengths.tolist()))


def trained_like(scoring):
    """Modules whose weights are as spread as training leaves them."""
    torch.manual_seed(0)
    pool = AttentionPool(N_UNITS, scoring, n_attention=70, dropout=0.5).eval()
    decoder = Decoder(N_UNITS, 7, n_hidden=50, dropout=0.5).eval()
    for parameter in (*pool.parameters(), *decoder.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    return lambda hidden, lengths: decoder(pool(hidden, lengths)[0])


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("scoring", ["mean", "eq8", "eq9"])
@torch.inference_mode()
def test_logits_have_the_same_bits_in_any_batch(scoring, n_threads):
    model, frames = trained_like(scoring), utterances()
    lengths = torch.tensor([len(one) for one in frames])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = model(torch.cat(frames), lengths)
        torch.set_num_threads(n_threads)
        for size in (1, 2, 31, 256):
            for first in range(0, N_UTTERANCES if size > 1 else 40, size):
                chosen = slice(first, min(first + size, N_UTTERANCES))
                logits = model(torch.cat(frames[chosen]), lengths[chosen])
                assert torch.equal(logits, together[chosen])
        padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True, padding_value=float("nan"))
        assert torch.equal(model(padded, lengths), together)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("scoring", ["eq8", "eq9"])
@torch.inference_mode()
def test_utterance_has_the_same_bits_at_every_row_offset(scoring):
    model, frames = trained_like(scoring), utterances()
    alone = model(frames[7], torch.tensor([len(frames[7])]))
    for offset in range(1, 97):  # every offset modulo the tiles of the product and of the pool
        rows = torch.cat([frames[8][:1].expand(offset, -1), frames[7]])
        assert torch.equal(model(rows, torch.tensor([offset, len(frames[7])]))[1:], alone)
