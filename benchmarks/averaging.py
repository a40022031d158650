"""What averaging brings: a finished run with several models a fold, beside each of its models alone.

The models' own answers lie in the run's folder. The gain over their mean is tested, as rows of the paper's ladder are,
on resamples of speakers and utterances. Written to OUTPUT as JSON::

    serfast cross-validate emodb path/to/emodb --recipe strong --jobs 2 --output RUN
    python -m benchmarks.averaging RUN OUTPUT
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import serfast
from serfast.evaluation import UtterancePrediction
from serfast.evaluation.results import read_predictions, score_predictions
from serfast.metrics import compare


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a cross-validation with n_models above 1")
    parser.add_argument("output", type=Path, help="file of the figures")
    arguments = parser.parse_args()
    result = serfast.Result.load(arguments.run)
    answers = {"averaged": list(result.predictions)}
    for model in sorted({path.name for path in arguments.run.glob("folds/*/models/*")}, key=int):
        files = [arguments.run / "folds" / fold.name / "models" / model / "predictions.csv" for fold in result.folds]
        answers[f"model {model}"] = [row for path in files for row in read_predictions(path)]
    found: dict[str, object] = {}
    for name, rows in answers.items():
        scores = score_predictions(rows, result.emotions)
        found[name] = {"ua": scores.ua, "wa": scores.wa, "macro_f1": scores.macro_f1}
    averaged, *models = [labels(rows, result.emotions) for rows in answers.values()]
    truth = np.array([result.emotions.index(row.emotion) for row in result.predictions])
    speakers = [row.speaker for row in result.predictions]
    gain = compare(truth, averaged[None], np.stack(models), speakers, len(result.emotions))
    found["gain over the mean of the models"] = asdict(gain)
    text = json.dumps(found, indent=1)
    print(text)
    arguments.output.write_text(text + "\n", encoding="utf-8")


def labels(rows: list[UtterancePrediction], emotions: tuple[str, ...]) -> NDArray[np.int64]:
    """Index of each answer's emotion, (utterance,), in the order of the rows."""
    return np.array([emotions.index(row.predicted) for row in rows])


if __name__ == "__main__":
    main()
