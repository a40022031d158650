"""What attention_pool refuses, and how it says so."""

import re

import pytest
import torch

from serfast.ops import Lengths, attention_pool

HIDDEN = torch.zeros(5, 4)
LENGTHS = torch.tensor([2, 3])
QUERY = torch.zeros(4)
OTHER = torch.zeros(7, 4)


def refused(error, message, *arguments, **options):
    with pytest.raises(error, match=re.escape(message)):
        attention_pool(*arguments, **options)


@pytest.mark.parametrize(
    ("error", "message", "hidden"),
    [
        (TypeError, "hidden must be float32, float64, bfloat16 or float16, got torch.int64", HIDDEN.long()),
        (ValueError, "hidden must have shape (row, unit) or (batch, time, unit), got (5,)", HIDDEN[:, 0]),
        (ValueError, "hidden must have shape (row, unit) or (batch, time, unit), got (5, 0)", HIDDEN[:, :0]),
    ],
)
def test_hidden(error, message, hidden):
    refused(error, message, hidden, LENGTHS, QUERY)


@pytest.mark.parametrize(
    ("error", "message", "lengths"),
    [
        (TypeError, "lengths must be an int64 tensor or Lengths, got torch.int32", LENGTHS.int()),
        (TypeError, "lengths must be an int64 tensor or Lengths, got list", [2, 3]),
        (ValueError, "lengths must have shape (batch,) with at least one utterance, got (1, 2)", LENGTHS[None]),
        (ValueError, "lengths must have shape (batch,) with at least one utterance, got (0,)", LENGTHS[:0]),
        (ValueError, "lengths must be at least 1, got 0", torch.tensor([5, 0])),
        (ValueError, "lengths must sum to the 5 rows of the data, got 6", torch.tensor([3, 3])),
        (ValueError, "lengths must fit data of shape (5, 4), got", Lengths.padded(LENGTHS, 4)),
    ],
)
def test_packed_lengths(error, message, lengths):
    refused(error, message, HIDDEN, lengths, QUERY)


@pytest.mark.parametrize(
    ("message", "lengths"),
    [
        ("lengths must be at most 3, the frames of the padded batch, got 4", torch.tensor([4, 1])),
        ("lengths must fit data of shape (2, 3), got lengths of a padded batch (1, 3)", torch.tensor([3])),
        ("lengths must be padded like data of shape (2, 3, 4), got packed lengths", Lengths.packed(LENGTHS)),
    ],
)
def test_padded_lengths(message, lengths):
    refused(ValueError, message, torch.zeros(2, 3, 4), lengths, QUERY)


@pytest.mark.parametrize(
    ("error", "message", "query", "projection"),
    [
        (ValueError, "query must have shape (4,) to match hidden, got (3,)", torch.zeros(3), None),
        (ValueError, "query must have shape (7,) to match projection, got (4,)", QUERY, OTHER),
        (TypeError, "query must be torch.float32 to go with hidden, got torch.float64", QUERY.double(), None),
        (ValueError, "projection must have shape (n_attention, 4) to match hidden, got (7,)", QUERY, torch.zeros(7)),
        (ValueError, "projection must have shape (n_attention, 4) to match hidden, got (7, 3)", QUERY, OTHER[:, :3]),
        (ValueError, "projection must have shape (n_attention, 4) to match hidden, got (0, 4)", QUERY, OTHER[:0]),
        (TypeError, "projection must be torch.float32 to go with hidden, got", QUERY, torch.zeros(4, 4).double()),
        (ValueError, "projection must be None when query is None", None, OTHER),
        (ValueError, "query must be on cpu like hidden, got meta", QUERY.to("meta"), None),
    ],
)
def test_query_and_projection(error, message, query, projection):
    refused(error, message, HIDDEN, LENGTHS, query, projection)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 0.999999, float("nan")])
def test_dropout(dropout):
    message = f"dropout must be at least 0 and below 1 when rounded to 1/65536, got {dropout}"
    refused(ValueError, message, HIDDEN, LENGTHS, QUERY, dropout=dropout)


@pytest.mark.parametrize(
    ("error", "message", "seed"),
    [
        (ValueError, f"seed must fit 64 bits, got {2**63}", 2**63),
        (TypeError, "seed must be an int or an int64 tensor, got float", 1.0),
        (TypeError, "seed must be an int or an int64 tensor, got torch.int32", torch.tensor(1, dtype=torch.int32)),
        (ValueError, "seed must have shape () or (2,) to match lengths, got (3,)", torch.tensor([1, 2, 3])),
    ],
)
def test_seed(error, message, seed):
    refused(error, message, HIDDEN, LENGTHS, QUERY, dropout=0.5, training=True, seed=seed)
