"""What each addition of the recipe ``strong`` brings: one model of the recipe, and of the recipe without one addition.

``default`` is where the additions begin: attention with eq. 9 and all other options at their defaults. Every row is a
cross-validation over five groups of speakers (``speaker_5_fold``) with one model a fold, tested against that of the
whole recipe as the paper's ladder is against its baseline; ``another seed`` shows what chance alone does. What
averaging several models brings is in ``benchmarks/averaging.py``. Runs are kept in OUTPUT and go on where they were
stopped; the table is written anew after each. Run::

    python -m benchmarks.strong_recipe path/to/emodb OUTPUT [--jobs 2]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import serfast
from benchmarks.machine import machine
from serfast.evaluation import LadderRow, compare_rows
from serfast.reports import write_paper_table

WITHOUT: dict[str, dict[str, Any]] = {
    "standardised speakers": {"normalisation": "training"},
    "dropout": {"encoder_dropout": 0.0, "pooling_dropout": 0.0, "decoder_dropout": 0.0},
    "one-cycle steps": {"schedule": "constant"},
    "averaged weights": {"averaging": 0.0},
    "noise": {"noise": 0.0},
    "shifts": {"offset": 0.0},
    "masked spans": {"n_masked": 0},
    "weight decay": {"weight_decay": 0.0},
}
ONE: dict[str, Any] = {"recipe": "strong", "n_models": 1}
ROWS: dict[str, dict[str, Any]] = {
    "one model": ONE,
    "default": {"pooling": "eq9"},
    "another seed": {**ONE, "seed": 1},
    **{f"without {name}": {**ONE, **options} for name, options in WITHOUT.items()},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of EmoDB")
    parser.add_argument("output", type=Path, help="folder of the runs and of the table")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    corpus = serfast.load_corpus("emodb", arguments.root)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n", encoding="utf-8")
    rows: list[LadderRow] = []
    for title, options in ROWS.items():
        name = title.replace(" ", "_")
        folder = arguments.output / "runs" / name
        result = serfast.cross_validate(
            corpus, protocol="speaker_5_fold", output=folder, jobs=arguments.jobs, **options
        )
        rows.append(LadderRow(name, title, "", (result,)))
        write_paper_table(compare_rows(rows, baseline="one_model"), arguments.output)
        print(
            f"{title}: UA {result.pooled.ua:.3f}, WA {result.pooled.wa:.3f}, {result.training_seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
