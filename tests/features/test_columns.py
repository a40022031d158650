import numpy as np
import pytest

from serfast import FeatureStore
from serfast.features import ColumnSource


def test_columns_are_chosen_by_name_in_the_order_asked_for(tiny_store: FeatureStore):
    chosen = ColumnSource(tiny_store, tiny_store.feature_names, ["log_f0", "mfcc_0"])
    assert np.array_equal(chosen.lengths, tiny_store.lengths)
    indices = np.array([7, 2])
    rows = tiny_store.gather(indices)
    expected = np.column_stack([rows[:, tiny_store.feature_names.index(name)] for name in ("log_f0", "mfcc_0")])
    assert np.array_equal(chosen.gather(indices), expected)
    assert chosen.gather(indices).flags.c_contiguous


def test_columns_that_are_not_there_are_named(tiny_store: FeatureStore):
    with pytest.raises(ValueError, match="chosen must name columns of the features, got jitter, shimmer"):
        ColumnSource(tiny_store, tiny_store.feature_names, ["jitter", "mfcc_0", "shimmer"])
