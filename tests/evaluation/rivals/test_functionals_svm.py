import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from serfast import FeatureStore
from serfast.corpora.folds import single
from serfast.evaluation.rivals import FunctionalsSvm
from serfast.evaluation.system import FoldContext
from serfast.features import functionals


def test_the_cost_is_the_smallest_of_those_that_validate_best(make_store: Callable[..., FeatureStore], tmp_path: Path):
    store = make_store(tmp_path / "store", n_utterances=15, separation=0.3)
    (whole,) = single(store.corpus)
    fold = dataclasses.replace(whole, train=whole.train[15:], test=whole.train[:15])
    system = FunctionalsSvm(costs=(1e-4, 1e-2, 1.0))
    outcome = system.fit(
        FoldContext(store, fold, tmp_path, tmp_path, torch.device("cpu"), lambda record: None, fold.name)
    )

    features = np.stack([functionals(store.utterance_rows(index)).ravel() for index in range(len(store.lengths))])
    labels = np.array(store.corpus.labels())
    pipelines = {
        cost: make_pipeline(StandardScaler(), LinearSVC(C=cost, dual=False, class_weight="balanced"))
        for cost in system.costs
    }
    scores = {}
    for cost, pipeline in pipelines.items():
        pipeline.fit(features[list(fold.train)], labels[list(fold.train)])
        predicted = pipeline.predict(features[list(fold.validation)])
        scores[cost] = balanced_accuracy_score(labels[list(fold.validation)], predicted)
    assert outcome.choices == {"cost": max(scores, key=scores.get)}
    expected = pipelines[outcome.choices["cost"]].predict(features[list(fold.test)])
    assert np.array_equal(outcome.probabilities.argmax(axis=1), expected)
    assert (outcome.n_epochs, outcome.best_epoch) == (0, 0)


def test_the_library_is_imported_only_where_it_learns():
    program = "import sys, serfast.evaluation.rivals; print('sklearn' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "value"), [("costs", ()), ("costs", (1.0, -1.0)), ("normalisation", "utterance"), ("normalisation", None)]
)
def test_values_out_of_range_are_named(name: str, value: object):
    with pytest.raises(ValueError, match=f"{name} must .*, got "):
        FunctionalsSvm(**{name: value})
