import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from serfast import Explanation, Prediction
from serfast.evaluation import AttentionFrames, AttentionStudy, UtterancePrediction
from serfast.evaluation.attention_study import UtteranceAttention
from serfast.reports import (
    draw_correlations,
    draw_explanation,
    draw_frames,
    draw_positions,
    draw_voicing,
    save_figure,
)

BLUE = (0, 0x72 / 255, 0xB2 / 255)
EMOTIONS = ("anger", "$x^", "neutral")  # a name that would be broken mathematics


def frames_of(seed: int, n_frames: int = 60) -> AttentionFrames:
    generator = np.random.default_rng(seed)
    emotion = EMOTIONS[seed % len(EMOTIONS)]
    return AttentionFrames(
        UtterancePrediction("fold", f"clip_{seed}$_$.wav", "s", emotion, "neutral", {}),
        np.arange(n_frames) / 100,
        generator.dirichlet(np.ones(n_frames)),
        generator.random(n_frames),
        generator.random(n_frames),
        generator.random(n_frames) > 0.4,
    )


@pytest.fixture
def study() -> AttentionStudy:
    return AttentionStudy("made-up", EMOTIONS, tuple(UtteranceAttention.of(frames_of(seed)) for seed in range(30)))


def explanation_of(weights: np.ndarray | None, n_frames: int = 101) -> Explanation:
    probabilities = {"anger": 0.7, "$x^": 0.2, "neutral": 0.1}
    times_s = np.arange(n_frames) / 100
    prediction = Prediction(Path("a$b$.wav"), "anger", probabilities, {}, weights, times_s)
    f0_hz = np.where(times_s < 0.5, 0, 120).astype(np.float32)
    waveform = np.sin(np.arange(160 * (n_frames - 1))).astype(np.float32)
    return Explanation(prediction, "last" if weights is None else "eq9", waveform, 16000, f0_hz)


def check_files(figure: Figure, path: Path) -> None:
    png, svg = save_figure(figure, path)
    assert (png.name, svg.name) == (f"{path.name}.png", f"{path.name}.svg")
    image = matplotlib.image.imread(png)[..., :3]
    assert (np.ptp(image, axis=(0, 1)) > 0.5).all()
    assert (np.abs(image - BLUE).max(axis=-1) < 0.01).any()  # data, not axes alone
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_figure_3_shows_attention_over_both_energies(tmp_path: Path):
    frames = frames_of(0)
    figure = draw_frames(frames)
    upper, lower = figure.axes[:2]
    found = UtteranceAttention.of(frames)
    assert f"{found.correlation_raw:.2f}" in upper.get_title()
    assert f"{found.correlation_hidden:.2f}" in lower.get_title()
    for axes in (upper, lower):
        x, y = axes.lines[0].get_data()
        assert np.array_equal(x, frames.times_s)
        assert np.array_equal(y, frames.attention_weights)
    check_files(figure, tmp_path / "figure3")


def test_a_constant_energy_has_an_undefined_correlation(tmp_path: Path):
    frames = frames_of(0)
    even = AttentionFrames(**{**vars(frames), "raw_energy": np.full(60, 0.1)})
    figure = draw_frames(even)
    assert figure.axes[0].get_title().endswith("correlation undefined")
    check_files(figure, tmp_path / "even")
    save_figure(draw_frames(frames_of(1, n_frames=1)), tmp_path / "single")


def test_figure_4_counts_every_defined_correlation(study: AttentionStudy, tmp_path: Path):
    undefined = UtteranceAttention.of(frames_of(1, n_frames=1))
    figure = draw_correlations(AttentionStudy("made-up", EMOTIONS, (*study.utterances, undefined)))
    for axes, values in zip(
        figure.axes,
        (
            [item.correlation_raw for item in study.utterances],
            [item.correlation_hidden for item in study.utterances],
        ),
        strict=True,
    ):
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == np.histogram(values, bins=np.linspace(-1, 1, 21))[0].tolist()
        assert f"median {np.median(values):.2f}, 1 undefined" in axes.get_title()
    check_files(figure, tmp_path / "figure4")


def test_attention_that_is_even_everywhere_leaves_figure_4_empty_and_says_so(tmp_path: Path):
    study = AttentionStudy("made-up", EMOTIONS, (UtteranceAttention.of(frames_of(1, n_frames=1)),))
    figure = draw_correlations(study)
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == 0
        assert axes.get_title().endswith(", 1 undefined")
    save_figure(figure, tmp_path / "figure4")


def test_attention_by_voicing_stands_at_its_means(study: AttentionStudy, tmp_path: Path):
    figure = draw_voicing(study)
    axes = figure.axes[0]
    means = study.by_voicing()
    for line, side in zip(axes.lines, (0, 1), strict=False):
        assert line.get_xdata().tolist() == [pair[side] for pair in means.values()]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(means)
    check_files(figure, tmp_path / "voicing")


def test_an_emotion_without_voiced_frames_is_drawn_without_them(tmp_path: Path):
    frames = frames_of(0)
    voiceless = AttentionFrames(**{**vars(frames), "voiced": np.zeros(60, dtype=bool)})
    study = AttentionStudy("made-up", EMOTIONS, (UtteranceAttention.of(voiceless),))
    save_figure(draw_voicing(study), tmp_path / "voicing")
    assert (tmp_path / "voicing.png").stat().st_size > 0


@pytest.mark.parametrize("n_emotions", [1, 3, 9])
def test_attention_by_position_has_a_panel_per_emotion(n_emotions: int, tmp_path: Path):
    names = [f"emotion {place}" for place in range(n_emotions)]
    utterances = []
    for seed in range(2 * n_emotions):
        frames = frames_of(seed)
        prediction = UtterancePrediction("fold", "k", "s", names[seed % n_emotions], names[0], {})
        utterances.append(UtteranceAttention.of(AttentionFrames(**{**vars(frames), "prediction": prediction})))
    study = AttentionStudy("made-up", tuple(names), tuple(utterances))
    figure = draw_positions(study)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == names
    for axes, values in zip(shown, study.by_position().values(), strict=True):
        assert axes.patches[1].get_data().values.tolist() == values.tolist()
    check_files(figure, tmp_path / "positions")


def test_an_explanation_is_drawn_on_one_time_axis(tmp_path: Path):
    weights = np.random.default_rng(0).dirichlet(np.ones(101)).astype(np.float32)
    explanation = explanation_of(weights)
    figure = draw_explanation(explanation)
    waveform, f0, attention, probabilities = figure.axes
    assert waveform.get_xlim() == f0.get_xlim() == attention.get_xlim() == (0, 1)
    assert np.array_equal(np.isnan(f0.lines[0].get_ydata()), explanation.f0_hz == 0)
    assert np.array_equal(attention.lines[0].get_ydata(), weights)
    assert [bar.get_width() for bar in probabilities.patches] == [0.7, 0.2, 0.1]
    check_files(figure, tmp_path / "explanation")


def test_an_explanation_without_attention_says_so(tmp_path: Path):
    figure = draw_explanation(explanation_of(None))
    assert len(figure.axes) == 3
    assert "pooling last has no attention weights" in figure.get_suptitle()
    check_files(figure, tmp_path / "explanation")


def test_the_drawn_waveform_reaches_every_peak():
    explanation = explanation_of(None, n_frames=1001)
    explanation.waveform[77_777] = 5.0
    collection = draw_explanation(explanation).axes[0].collections[0]
    assert collection.get_paths()[0].vertices[:, 1].max() == 5.0


def test_reports_load_matplotlib_only_to_draw():
    program = "import sys, serfast.reports; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
