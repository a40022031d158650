"""Figures of attention: figures 3 and 4 of the paper, attention by voicing and position, and one prediction explained.

Source: Huang and Narayanan (2016), section 5, figures 3 and 4.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serfast.evaluation import AttentionFrames, AttentionStudy
from serfast.evaluation.attention_study import UtteranceAttention
from serfast.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_correlations",
    "draw_explanation",
    "draw_frames",
    "draw_positions",
    "draw_voicing",
    "save_figure",
]

# Okabe and Ito's colours, told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
DARK_ORANGE = "#8F6200"  # for text
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # names come from users: a $ is a $
}
CHARACTERS_PER_INCH = 11  # of a head: longer names are broken
N_BINS = 20
N_COLUMNS = 4
N_ENVELOPE = 4000
"""Points of a drawn waveform; more could not be told apart."""

PNG_DPI = 150


def save_figure(figure: "Figure", path: Path) -> tuple[Path, Path]:
    """Write a figure as ``path`` with ``.png`` and with ``.svg`` added, and name both."""
    import matplotlib as mpl

    png, svg = path.with_name(path.name + ".png"), path.with_name(path.name + ".svg")
    with mpl.rc_context(STYLE):
        figure.savefig(png, dpi=PNG_DPI)
        figure.savefig(svg)
    return png, svg


def draw_frames(frames: AttentionFrames) -> "Figure":
    """Figure 3: attention weights over the frame energy of the raw signal, and over that of the hidden vectors."""
    prediction, found = frames.prediction, UtteranceAttention.of(frames)
    with _figure(7.0, 4.6) as figure:
        upper, lower = figure.subplots(2, sharex=True)
        _over_energy(upper, frames, frames.raw_energy, "energy (mean square)")
        _over_energy(lower, frames, frames.hidden_energy, "energy (squared norm)")
        upper.set_title(f"over the energy of the raw signal: {_correlation(found.correlation_raw)}")
        lower.set_title(f"over the energy of the hidden vectors: {_correlation(found.correlation_hidden)}")
        lower.set_xlabel("time (s)")
        _head(figure, f"{prediction.key}: {prediction.emotion}, answered {prediction.predicted}")
    return figure


def draw_correlations(study: AttentionStudy) -> "Figure":
    """Figure 4: over all utterances, how attention correlates with frame energy, of the raw signal and of h_t."""
    raw = [item.correlation_raw for item in study.utterances]
    hidden = [item.correlation_hidden for item in study.utterances]
    with _figure(7.0, 3.2) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _histogram(left, raw, "raw signal")
        _histogram(right, hidden, "hidden vectors")
        left.set_ylabel("utterances")
        _head(figure, f"{study.corpus}: attention against frame energy")
    return figure


def draw_voicing(study: AttentionStudy) -> "Figure":
    """Mean attention of voiced and of unvoiced frames, per emotion."""
    means = study.by_voicing()
    places = np.arange(len(means))
    voiced, unvoiced = (np.array([pair[side] for pair in means.values()], dtype=np.float64) for side in (0, 1))
    with _figure(6.0, 1.3 + 0.32 * len(means)) as figure:
        axes = figure.subplots()
        axes.hlines(places, voiced, unvoiced, color=GREY, linewidth=1)
        axes.plot(voiced, places, "o", color=BLUE, label="voiced frames")
        axes.plot(unvoiced, places, "s", color=ORANGE, label="unvoiced frames")
        axes.axvline(1, color=GREY, linestyle=":", linewidth=1, zorder=0)
        axes.set_yticks(places, list(means))
        axes.set_ylim(len(means) - 0.5, -0.5)
        axes.set_xlabel("mean attention relative to an even share")
        axes.set_title(f"{study.corpus}: attention by voicing")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_positions(study: AttentionStudy) -> "Figure":
    """Mean attention in ten equal parts of the utterance, per emotion, beside the mean over emotions."""
    means = study.by_position()
    overall = np.mean(list(means.values()), axis=0)
    n_rows = -(-len(means) // N_COLUMNS)
    n_columns = min(N_COLUMNS, len(means))
    with _figure(1.2 + 1.8 * n_columns, 0.9 + 1.6 * n_rows) as figure:
        panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for panel in panels.flat[len(means) :]:
            panel.set_visible(False)
        for place, (emotion, values) in enumerate(means.items()):
            panel = panels.flat[place]
            panel.stairs(overall, _percents(overall), color=GREY, linewidth=1, baseline=None)
            panel.stairs(values, _percents(values), color=BLUE, linewidth=1.5, baseline=None)
            panel.axhline(1, color=GREY, linestyle=":", linewidth=1, zorder=0)
            panel.set_title(emotion)
            panel.set_xticks([0, 50, 100])
            panel.xaxis.set_tick_params(labelbottom=place + n_columns >= len(means))
        figure.supxlabel("part of the utterance (%)", fontsize=9)
        figure.supylabel("relative attention", fontsize=9)
        _head(figure, f"{study.corpus}: attention by position; grey: mean over emotions; dotted: even")
    return figure


def draw_explanation(explanation: Explanation) -> "Figure":
    """Waveform, fundamental frequency and attention of one recording above each other, beside the probabilities."""
    prediction = explanation.prediction
    weights, times_s = prediction.attention_weights, prediction.times_s
    n_panels = 2 if weights is None else 3
    with _figure(8.5, 1.2 + 1.4 * n_panels) as figure:
        grid = figure.add_gridspec(n_panels, 2, width_ratios=(3.4, 1))
        panels = [figure.add_subplot(grid[0, 0])]
        panels += [figure.add_subplot(grid[row, 0], sharex=panels[0]) for row in range(1, n_panels)]
        _waveform(panels[0], explanation)
        f0_hz = np.where(explanation.f0_hz > 0, explanation.f0_hz, np.nan)
        panels[1].plot(times_s, f0_hz, ".", color=GREEN, markersize=3)
        panels[1].set_ylabel("F0 (Hz)")
        if weights is not None:
            panels[2].fill_between(times_s, weights, color=BLUE, alpha=0.25, linewidth=0)
            panels[2].plot(times_s, weights, color=BLUE, linewidth=1)
            panels[2].axhline(1 / len(weights), color=GREY, linestyle=":", linewidth=1)
            panels[2].set_ylim(bottom=0)
            panels[2].set_ylabel("attention")
        for panel in panels[:-1]:
            panel.xaxis.set_tick_params(labelbottom=False)
        panels[-1].set_xlabel("time (s)")
        panels[0].set_xlim(0, explanation.duration_s)
        _probabilities(figure.add_subplot(grid[:, 1]), explanation)
        without = f" (pooling {explanation.pooling} has no attention weights)" if weights is None else ""
        _head(figure, f"{prediction.path.name}: {prediction.emotion}{without}")
        figure.align_ylabels(panels)
    return figure


@contextmanager
def _figure(width: float, height: float) -> Iterator["Figure"]:
    # inches; matplotlib takes a second to import, and only figures need it
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _head(figure: "Figure", text: str) -> None:
    figure.suptitle(textwrap.fill(text, int(CHARACTERS_PER_INCH * figure.get_figwidth())), fontsize=10)


def _over_energy(axes: "Axes", frames: AttentionFrames, energy: NDArray[np.float64], label: str) -> None:
    behind = axes.twinx()
    axes.margins(x=0)
    behind.margins(x=0)
    behind.fill_between(frames.times_s, energy, color=ORANGE, alpha=0.45, linewidth=0)
    behind.set_ylabel(label, color=DARK_ORANGE)
    behind.spines["right"].set_visible(True)
    behind.set_ylim(bottom=0)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(frames.times_s, frames.attention_weights, color=BLUE, linewidth=1.2)
    axes.set_ylabel("attention weight", color=BLUE)
    axes.set_ylim(bottom=0)


def _correlation(value: float | None) -> str:
    return "correlation undefined" if value is None else f"correlation {value:.2f}"


def _histogram(axes: "Axes", correlations: Sequence[float | None], of_what: str) -> None:
    defined = np.array([value for value in correlations if value is not None])
    axes.hist(defined, bins=np.linspace(-1, 1, N_BINS + 1).tolist(), color=BLUE, edgecolor="white", linewidth=0.5)
    n_undefined = len(correlations) - len(defined)
    note = f", {n_undefined} undefined" if n_undefined else ""
    if len(defined):
        median = float(np.median(defined))
        axes.axvline(median, color="black", linestyle="--", linewidth=1)
        note = f", median {median:.2f}" + note
    axes.set_title(f"energy of the {of_what}{note}")
    axes.set_xlabel("Pearson's correlation")
    axes.set_xlim(-1, 1)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["-1", "-0.5", "0", "0.5", "1"])


def _waveform(axes: "Axes", explanation: Explanation) -> None:
    # the least and the largest sample of every stretch that is thinner than a line
    width = -(-len(explanation.waveform) // N_ENVELOPE)
    stretches = np.pad(explanation.waveform, (0, -len(explanation.waveform) % width), mode="edge").reshape(-1, width)
    times_s = (np.arange(len(stretches)) + 0.5) * width / explanation.sample_rate
    low, high = stretches.min(axis=1), stretches.max(axis=1)
    axes.fill_between(times_s, low, high, color="black", linewidth=0.4)
    axes.set_ylabel("waveform")


def _probabilities(axes: "Axes", explanation: Explanation) -> None:
    probabilities = explanation.prediction.probabilities
    places = range(len(probabilities))
    answered = [emotion == explanation.prediction.emotion for emotion in probabilities]
    axes.barh(places, list(probabilities.values()), color=[BLUE if chosen else GREY for chosen in answered])
    for place, value in zip(places, probabilities.values(), strict=True):
        axes.text(value + 0.02, place, f"{value:.2f}", va="center", fontsize=8)
    axes.set_yticks(places, list(probabilities))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("probability")


def _percents(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linspace(0, 100, len(values) + 1)
