"""Table 1 of the paper on any corpus: for a terminal, and as Markdown, CSV and LaTeX.

Source: Huang and Narayanan (2016), table 1.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from serfast import atomic
from serfast.evaluation import ComparedRow
from serfast.metrics import MIN_BOOTSTRAP_SPEAKERS

__all__ = [
    "paper_table",
    "paper_table_csv",
    "paper_table_latex",
    "paper_table_markdown",
    "paper_table_remarks",
    "write_paper_table",
]

PAPER_CORPUS = "iemocap"
PAPER_N_UTTERANCES = 4490
PAPER_WA = {
    "mean": 0.5787,
    "attention_eq8": 0.5588,
    "attention_eq9": 0.5638,
    "greedy_eq8": 0.5641,
    "greedy_eq9": 0.5733,
    "greedy_dropout_eq8": 0.5618,
    "greedy_dropout_eq9": 0.5736,
    "final_eq8": 0.5726,
    "final_eq9": 0.5933,
}
"""WA that the paper reports on IEMOCAP, by row."""

_SCORES = (("UA", "ua"), ("WA", "wa"), ("macro-F1", "macro_f1"))
_DIFFERENCES = _SCORES[:2]
_SCORINGS = {"eq8": "eq. 8", "eq9": "eq. 9", "": ""}
_LEAST_P = 0.001
N_DIGEST = 16  # characters, enough to tell folds apart


class _Cell(NamedTuple):
    value: str
    below: str  # the interval of a score, the p of a difference; empty where there is none


class _Line(NamedTuple):
    title: str  # empty where the line above has the same
    scoring: str
    n_seeds: str
    numbers: tuple[_Cell, ...]


def paper_table(rows: Sequence[ComparedRow]) -> Table:
    """The table for a terminal; intervals and p values stand below what they belong to."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(_headings(rows)):
        table.add_column(Text(name), justify="left" if place < 2 else "right", no_wrap=True)
    lines = list(_lines(rows))
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        cells = (_Cell(line.title, ""), _Cell(line.scoring, ""), _Cell(line.n_seeds, ""), *line.numbers)
        last_of_title = following is None or following.title != ""
        table.add_row(*(Text(f"{cell.value}\n{cell.below}") for cell in cells), end_section=last_of_title)
    return table


def paper_table_markdown(rows: Sequence[ComparedRow]) -> str:
    """The table as Markdown, with its remarks."""
    headings = _headings(rows)
    lines = [headings, ["---"] * 2 + ["---:"] * (len(headings) - 2)]
    for line in _lines(rows):
        numbers = [f"{cell.value} ({cell.below})" if cell.below else cell.value for cell in line.numbers]
        lines.append([line.title.replace("|", "\\|"), line.scoring, line.n_seeds, *numbers])
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return table + "".join(f"\n- {remark}" for remark in paper_table_remarks(rows)) + "\n"


def paper_table_csv(rows: Sequence[ComparedRow]) -> str:
    """The table as CSV: shares instead of percent, unrounded; empty where there is nothing to report."""
    text = io.StringIO()
    records = [_record(row, rows) for row in rows]
    writer = csv.DictWriter(text, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def paper_table_latex(rows: Sequence[ComparedRow]) -> str:
    r"""The table as a LaTeX ``table`` environment that needs no package, its remarks as the caption.

    Every line of the table takes two of text: scoring, seeds, intervals and p values stand below.
    """
    words = [heading.rpartition(" ") for heading in _headings(rows)[3:]]
    lines = _latex_lines("system", "", [_Cell(first or last, last if first else "") for first, _, last in words])
    for line in _lines(rows):
        seeds = f"{line.n_seeds} seed{'s' * (line.n_seeds != '1')}"
        lines += [r"\hline"] if line.title else []
        lines += _latex_lines(line.title, f"{line.scoring}, {seeds}" if line.scoring else seeds, line.numbers)
    caption = " ".join(f"{_latex(remark[0].upper() + remark[1:])}." for remark in paper_table_remarks(rows))
    opening = [
        r"\begin{table}",
        r"\caption{" + caption + "}",
        r"\vspace{1ex}\centering\scriptsize\setlength{\tabcolsep}{2pt}",
        rf"\begin{{tabular}}{{l{'r' * len(words)}}}",
        r"\hline",
    ]
    return "\n".join([*opening, *lines, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def paper_table_remarks(rows: Sequence[ComparedRow]) -> list[str]:
    """What a reader of the table must know: data, folds, how scores, intervals and tests are made, notes, choices."""
    result = rows[0].row.results[0]
    n_speakers = len({item.speaker for item in result.predictions})
    remarks = [
        f"corpus {result.corpus}: {len(result.predictions)} utterances of {n_speakers} speakers, the {result.part} "
        f"parts of {len(result.folds)} folds; protocol {result.protocol}, splits {result.splits_digest[:N_DIGEST]}",
        "UA, WA and macro-F1 in percent, over all folds pooled, means over seeds",
    ]
    if rows[0].scores.intervals:
        remarks.append("95 % intervals resample speakers, then their utterances, all seeds of an utterance together")
        n_tests = sum(row.comparison is not None for row in rows)
        baseline = next(row.row.title for row in rows if row.comparison is None)
        if n_tests:
            remarks.append(
                f"gains are over “{baseline}”; p: two-sided, of a paired test on the same resamples, corrected by "
                f"Holm's method over the {n_tests} tests of a score"
            )
    else:
        remarks.append(f"no intervals and no tests: they resample speakers and need at least {MIN_BOOTSTRAP_SPEAKERS}")
    if result.excluded:
        remarks.append(f"excluded: {', '.join(result.excluded)}")
    remarks += dict.fromkeys(note for row in rows for found in row.row.results for note in found.notes)
    if result.corpus == PAPER_CORPUS:
        remarks.append(f"WA of the paper: on {PAPER_N_UTTERANCES} utterances of four emotions")
    return remarks + [remark for row in rows for remark in _choices(row)]


def write_paper_table(rows: Sequence[ComparedRow], folder: Path) -> tuple[Path, ...]:
    """Write ``table.md``, ``table.csv`` and ``table.tex`` into ``folder``, which must exist."""
    contents = {
        "table.md": paper_table_markdown(rows),
        "table.csv": paper_table_csv(rows),
        "table.tex": paper_table_latex(rows),
    }
    for name, content in contents.items():
        atomic.write_bytes(folder / name, content.encode())
    return tuple(folder / name for name in contents)


def _headings(rows: Sequence[ComparedRow]) -> list[str]:
    scores = [label for label, _ in _SCORES] + [f"{label} gain" for label, _ in _DIFFERENCES]
    return ["system", "scoring", "seeds", *scores, *(["WA of paper"] if _beside_paper(rows) else [])]


def _lines(rows: Sequence[ComparedRow]) -> Iterator[_Line]:
    above = None
    for compared in rows:
        row = compared.row
        cells = [*_score_cells(compared), *_difference_cells(compared)]
        if _beside_paper(rows):
            published = PAPER_WA.get(row.name)
            cells.append(_Cell("" if published is None else f"{100 * published:.2f}", ""))
        title = "" if row.title == above else row.title
        yield _Line(title, _SCORINGS[row.scoring], str(len(row.results)), tuple(cells))
        above = row.title


def _score_cells(compared: ComparedRow) -> Iterator[_Cell]:
    for _, name in _SCORES:
        interval = compared.scores.intervals.get(name)
        below = f"{100 * interval.low:.1f} - {100 * interval.high:.1f}" if interval else ""
        yield _Cell(f"{100 * getattr(compared.scores, name):.2f}", below)


def _difference_cells(compared: ComparedRow) -> Iterator[_Cell]:
    for _, name in _DIFFERENCES:
        if compared.comparison is None:
            yield _Cell("", "")
            continue
        p = compared.corrected_p[name]
        below = f"p < {_LEAST_P}" if p < _LEAST_P else f"p {p:.3f}"
        gain = round(100 * getattr(compared.comparison, name).value, 2)
        yield _Cell(f"{gain + 0.0:+.2f}", below)  # a gain of -0.0 is +0.00


def _record(compared: ComparedRow, rows: Sequence[ComparedRow]) -> dict[str, object]:
    row, result = compared.row, compared.row.results[0]
    record: dict[str, object] = {
        "name": row.name,
        "title": row.title,
        "scoring": row.scoring,
        "n_seeds": len(row.results),
        "n_utterances": len(result.predictions),
    }
    for _, name in _SCORES:
        interval = compared.scores.intervals.get(name)
        record[name] = getattr(compared.scores, name)
        record[f"{name}_low"], record[f"{name}_high"] = (interval.low, interval.high) if interval else ("", "")
    for _, name in _DIFFERENCES:
        found = None if compared.comparison is None else getattr(compared.comparison, name)
        interval = found and found.interval
        record[f"{name}_gain"] = found.value if found else ""
        record[f"{name}_gain_low"] = interval.low if interval else ""
        record[f"{name}_gain_high"] = interval.high if interval else ""
        record[f"{name}_p"] = found.p if found else ""
        record[f"{name}_p_corrected"] = compared.corrected_p.get(name, "")
    if _beside_paper(rows):
        record["paper_wa"] = PAPER_WA.get(row.name, "")
    return record


def _choices(compared: ComparedRow) -> Iterator[str]:
    folds = [fold for result in compared.row.results for fold in result.folds]
    names = list(dict.fromkeys(name for fold in folds for name in fold.choices))
    scoring = _SCORINGS[compared.row.scoring]
    for name in names:
        values = [fold.choices[name] for fold in folds if name in fold.choices]
        counts = Counter(map(str, values))
        ordered = sorted(values, key=lambda value: (0, value, "") if isinstance(value, Real) else (1, 0, str(value)))
        chosen = ", ".join(f"{value} in {counts[value]}" for value in dict.fromkeys(map(str, ordered)))
        system = f"{compared.row.title}, {scoring}" if scoring else compared.row.title
        yield f"{system}: {name} chosen on the validation part: {chosen} of {len(folds)} trained folds"


def _beside_paper(rows: Sequence[ComparedRow]) -> bool:
    return rows[0].row.results[0].corpus == PAPER_CORPUS


def _latex_lines(title: str, below: str, cells: Sequence[_Cell]) -> list[str]:
    values, notes = [title, *(cell.value for cell in cells)], [below, *(cell.below for cell in cells)]
    return [" & ".join(_latex(word) for word in words) + r" \\" for words in (values, notes)]


def _latex(text: str) -> str:
    """``text`` with the characters escaped that LaTeX reads as commands."""
    escaped = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
    words = "".join(escaped.get(character, character) for character in text)
    signed = f"$-${words[1:]}" if words.startswith("-") else words
    return signed.replace(" - ", "--").replace("eq. ", "eq.~")
