"""What a user sees of an extraction, in a terminal and elsewhere."""

import pytest

from serfast.evaluation import extraction_report as module
from serfast.evaluation.extraction_report import extraction_report
from serfast.evaluation.progress import Progress
from serfast.features import ExtractionProgress

HALF = ExtractionProgress(n_done=50, n_utterances=100, audio_s=7200.0, elapsed_s=4.0)
WHOLE = ExtractionProgress(n_done=100, n_utterances=100, audio_s=14400.0, elapsed_s=8.0)
SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_a_bar_with_hours_per_second_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with extraction_report(Progress(True)) as report:
        report(HALF)
    shown = capsys.readouterr().err
    assert "50/100 utterances, 2.00 h of audio, 0.50 h per second, 0:04 left" in shown
    assert "━" in shown


@pytest.mark.usefixtures("terminal")
def test_an_interrupted_extraction_gives_the_cursor_back(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        with extraction_report(Progress(True)) as report:
            report(HALF)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert SHOW_CURSOR in capsys.readouterr().err


@pytest.mark.usefixtures("no_terminal")
def test_elsewhere_a_line_is_shown_now_and_then_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times_s = iter([0.0, 0.5, module.LINE_EVERY_S, module.LINE_EVERY_S + 0.1, module.LINE_EVERY_S + 0.2])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times_s))
    with extraction_report(Progress(True)) as report:
        for reached in (HALF, HALF, HALF, WHOLE):
            report(reached)
    assert capsys.readouterr().err.splitlines() == [
        "features: 50/100 utterances, 2.00 h of audio, 0.50 h per second, 0:04 left",
        "features: 100/100 utterances, 4.00 h of audio, 0.50 h per second, 0:00 left",
    ]


@pytest.mark.usefixtures("no_terminal")
def test_nothing_new_is_said_to_be_stored_already(capsys: pytest.CaptureFixture[str]) -> None:
    with extraction_report(Progress(True)) as report:
        report(ExtractionProgress(n_done=3, n_utterances=3, audio_s=0.0, elapsed_s=0.1))
    assert capsys.readouterr().err == "features: 3/3 utterances, stored already\n"


@pytest.mark.usefixtures("terminal")
def test_silence_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with extraction_report(Progress(False)) as report:
        report(WHOLE)
    assert capsys.readouterr().err == ""
