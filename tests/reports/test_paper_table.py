import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from serfast import Result
from serfast.evaluation import ComparedRow, LadderRow, compare_rows
from serfast.reports import paper_table, paper_table_remarks, write_paper_table

TITLE = r"Attention & 50% of {x_y} \ #1 | <new>"


@pytest.fixture
def make_rows(make_result: Callable[..., Result]) -> Callable[..., tuple[ComparedRow, ...]]:
    def make(**changes: object) -> tuple[ComparedRow, ...]:
        choices = {"pooling_dropout": 0.25}
        rows = [
            LadderRow("mean", "Baseline", "", (make_result(seed=0, **changes), make_result(seed=1, **changes))),
            LadderRow("attention_eq8", TITLE, "eq8", (make_result(right=0.3, seed=2, **changes),)),
            LadderRow("attention_eq9", TITLE, "eq9", (make_result(right=0.9, seed=3, choices=choices, **changes),)),
        ]
        return compare_rows(rows, baseline="mean")

    return make


def written(rows: tuple[ComparedRow, ...], folder: Path) -> dict[str, str]:
    return {path.suffix: path.read_text(encoding="utf-8") for path in write_paper_table(rows, folder)}


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def test_csv_parses_back_to_the_values(make_rows: Callable[..., tuple[ComparedRow, ...]], tmp_path: Path):
    rows = make_rows()
    records = list(csv.DictReader(io.StringIO(written(rows, tmp_path)[".csv"])))
    for compared, record in zip(rows, records, strict=True):
        assert (record["name"], record["title"]) == (compared.row.name, compared.row.title)
        assert (record["scoring"], int(record["n_seeds"])) == (compared.row.scoring, len(compared.row.results))
        for name in ("ua", "wa", "macro_f1"):
            assert float(record[name]) == getattr(compared.scores, name)
            assert float(record[f"{name}_low"]) == compared.scores.intervals[name].low
            assert float(record[f"{name}_high"]) == compared.scores.intervals[name].high
        for name in ("ua", "wa"):
            if compared.comparison is None:
                assert {record[f"{name}_gain"], record[f"{name}_p"], record[f"{name}_p_corrected"]} == {""}
                continue
            difference = getattr(compared.comparison, name)
            assert float(record[f"{name}_gain"]) == difference.value
            assert float(record[f"{name}_gain_low"]) == difference.interval.low
            assert float(record[f"{name}_gain_high"]) == difference.interval.high
            assert float(record[f"{name}_p"]) == difference.p
            assert float(record[f"{name}_p_corrected"]) == compared.corrected_p[name]
    assert "paper_wa" not in records[0]


def test_latex_parses_back_to_the_values_and_needs_no_package(
    make_rows: Callable[..., tuple[ComparedRow, ...]], tmp_path: Path
):
    rows = make_rows()
    text = written(rows, tmp_path)[".tex"]
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        *("begin", "end", "caption", "vspace", "centering", "scriptsize", "setlength", "tabcolsep", "hline"),
        "textbackslash",
    }
    body = text.split(r"\begin{tabular}{lrrrrr}")[1].split(r"\end{tabular}")[0]
    lines = [line.removesuffix(r" \\") for line in body.split("\n") if line.strip() and line != r"\hline"]
    cells = [re.split(r" (?<!\\)& ", line) for line in lines]
    assert {len(line) for line in cells} == {6}
    for place, compared in enumerate(rows):
        values, notes = cells[2 + 2 * place], cells[3 + 2 * place]
        assert values[1:3] == [percent(compared.scores.ua), percent(compared.scores.wa)]
        interval = compared.scores.intervals["ua"]
        assert notes[1] == f"{100 * interval.low:.1f}--{100 * interval.high:.1f}"
        if compared.comparison is not None:
            gain = compared.comparison.wa.value
            assert values[5] == ("+" if gain > 0 else "$-$") + percent(abs(gain))
    assert cells[4][0] == r"Attention \& 50\% of \{x\_y\} \textbackslash{} \#1 | $<$new$>$"
    assert cells[5][0] == "eq.~8, 1 seed"
    assert cells[6][0] == ""


def test_equation_8_stands_above_equation_9_and_the_title_once(
    make_rows: Callable[..., tuple[ComparedRow, ...]], tmp_path: Path
):
    rows = make_rows()
    table = [line.split(" | ") for line in written(rows, tmp_path)[".md"].splitlines() if line.startswith("| ")]
    assert [line[1].strip() for line in table] == ["scoring", "---", "", "eq. 8", "eq. 9"]
    assert [line[0].strip("| ") for line in table[3:]] == [TITLE.replace("|", r"\|"), ""]
    for line, compared in zip(table[2:], rows, strict=True):
        assert line[2] == str(len(compared.row.results))
        assert line[3].startswith(percent(compared.scores.ua) + " (")
        assert line[4].startswith(percent(compared.scores.wa) + " (")


def test_the_terminal_shows_every_number(make_rows: Callable[..., tuple[ComparedRow, ...]]):
    rows = make_rows()
    console = Console(file=io.StringIO(), width=200)
    console.print(paper_table(rows))
    text = console.file.getvalue()
    for compared in rows:
        for value in (compared.scores.ua, compared.scores.wa, compared.scores.macro_f1):
            assert percent(value) in text
    assert TITLE in text
    assert "WA of paper" not in text


def test_figures_of_the_paper_stand_beside_ours_on_its_corpus_only(
    make_rows: Callable[..., tuple[ComparedRow, ...]], tmp_path: Path
):
    files = written(make_rows(corpus="iemocap"), tmp_path)
    records = list(csv.DictReader(io.StringIO(files[".csv"])))
    assert [record["paper_wa"] for record in records] == ["0.5787", "0.5588", "0.5638"]
    assert [line.split(" | ")[-1] for line in files[".md"].splitlines()[2:5]] == ["57.87 |", "55.88 |", "56.38 |"]
    assert "4490 utterances" in files[".md"]


def test_remarks_say_how_the_numbers_were_made(make_rows: Callable[..., tuple[ComparedRow, ...]]):
    notes = ("left out 3 of 75 utterances: boredom 3", "b.wav = a.wav")
    remarks = "\n".join(paper_table_remarks(make_rows(excluded=("a", "b"), notes=notes)))
    assert [remarks.count(note) for note in notes] == [1, 1]
    assert "72 utterances of 6 speakers, the test parts of 6 folds" in remarks
    assert "protocol leave_one_speaker_out, splits 5eed" in remarks
    assert "gains are over “Baseline”" in remarks
    assert "over the 2 tests of a score" in remarks
    assert "excluded: a, b" in remarks
    assert "eq. 9: pooling_dropout chosen on the validation part: 0.25 in 6 of 6 trained folds" in remarks
    few = paper_table_remarks(make_rows(n_speakers=4))
    assert "no intervals and no tests: they resample speakers and need at least 5" in few


def test_choices_are_counted_in_the_order_of_their_values(make_result: Callable[..., Result]):
    results = [make_result(seed=0, choices={"cost": cost}) for cost in (0.1, 1e-05, 0.001, 1e-05, True, "none")]
    (row,) = compare_rows([LadderRow("mean", "SVM", "", tuple(results))], baseline="mean")
    expected = "SVM: cost chosen on the validation part: 1e-05 in 12, 0.001 in 6, 0.1 in 6, True in 6, none in 6 of 36"
    assert paper_table_remarks([row])[-1].startswith(expected)
