import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer

import serfast
from serfast import FeatureStore, Recognizer
from serfast.cli import app
from serfast.corpora import CORPORA, PROTOCOLS

UTTERANCE = "wav/f1_002_neutral.wav"
SERFAST = [sys.executable, "-m", "serfast"]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    process = subprocess.run([*SERFAST, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert process.returncode == code, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module")
def corpus_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    serfast.corpora.synthetic.generate(root, n_speakers=4, n_utterances=8)
    return root


@pytest.fixture(scope="module")
def trained(corpus_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    run("train", "synthetic", corpus_root, "--output", output, "--set", "n_units=8", "--set", "n_epochs=1")
    return output


def test_help_is_quick_and_loads_neither_torch_nor_numba():
    program = textwrap.dedent("""
        import sys
        from serfast.cli import app
        try:
            app(["--help"])
        except SystemExit:
            pass
        print([name for name in ("torch", "numba", "numpy") if name in sys.modules])
    """)
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"
    for command in ("demo", "features", "train", "cross-validate", "evaluate", "predict", "explain", "paper", "info"):
        assert command in process.stdout


def test_help_names_every_corpus_and_protocol():
    described = {option.name: option.help for option in typer.main.get_command(app).commands["cross-validate"].params}
    assert set(CORPORA) <= set(re.findall(r"[\w-]+", described["corpus"]))
    assert set(PROTOCOLS) - {"single"} <= set(re.findall(r"\w+", described["protocol"]))


def test_info_prints_what_a_bug_report_needs():
    printed = run("info").stdout
    for name in ("serfast", "python", "torch", "numba", "cpu kernels", "cuda kernels", "threads", "devices"):
        assert f"{name}:" in printed


def test_train_shows_progress_and_a_report(corpus_root: Path, tmp_path: Path):
    process = run(
        "train", "synthetic", corpus_root, "--output", tmp_path / "run", "--set", "n_units=4", "--set", "n_epochs=2"
    )
    assert "epoch  2/2" in process.stderr
    for word in ("UA", "WA", "macro-F1", "confusion", "anger", f"Saved in {tmp_path / 'run'}"):
        assert word in process.stdout


def test_predict_prints_a_table_or_json(trained: Path, corpus_root: Path):
    clips = sorted(corpus_root.rglob("*.wav"))[:2]
    printed = run("predict", trained, *clips).stdout
    assert "…" not in printed
    for word in ("anger", "happiness", "neutral", "sadness", str(clips[0])):
        assert word in printed
    predictions = json.loads(run("predict", trained, *clips, "--json").stdout)
    assert [prediction["path"] for prediction in predictions] == [str(clip) for clip in clips]
    assert sum(predictions[0]["probabilities"].values()) == pytest.approx(1)
    assert len(predictions[0]["attention_weights"]) == len(predictions[0]["times_s"])


def test_explain_draws_a_recording_and_writes_its_numbers(trained: Path, corpus_root: Path, tmp_path: Path):
    clip = sorted(corpus_root.rglob("*.wav"))[0]
    printed = run("explain", trained, clip, "--output", tmp_path / "out").stdout
    stored = json.loads((tmp_path / "out" / f"{clip.stem}.json").read_text())
    predicted = Recognizer.load(trained).predict([clip])[0]
    assert stored == {**stored, **predicted.to_dict()}
    assert predicted.emotion in printed
    for suffix in (".png", ".svg", ".json"):
        assert str(tmp_path / "out" / f"{clip.stem}{suffix}") in printed
        assert (tmp_path / "out" / f"{clip.stem}{suffix}").stat().st_size > 0
    process = run("explain", trained, clip, "--enroll", clip, code=1)
    assert "--enroll must not be given for a model that was trained with normalisation 'training'" in process.stderr


def test_explain_keeps_the_explanation_of_another_recording_of_that_name(
    trained: Path, corpus_root: Path, tmp_path: Path
):
    recordings = sorted(corpus_root.rglob("*.wav"))[:2]
    for folder, recording in zip("ab", recordings, strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(recording, tmp_path / folder / "clip.wav")
    first, second = (tmp_path / folder / "clip.wav" for folder in "ab")
    run("explain", trained, first, "--output", tmp_path / "out")
    kept = (tmp_path / "out" / "clip.json").read_bytes()
    process = run("explain", trained, second, "--output", tmp_path / "out", code=1)
    assert f"clip.json of another recording, got {tmp_path / 'out'} with that of {first}" in process.stderr
    assert (tmp_path / "out" / "clip.json").read_bytes() == kept
    run("explain", trained, first, "--output", tmp_path / "out")


def test_names_that_the_console_cannot_print_stop_nothing(corpus_root: Path, tmp_path: Path):
    rows = ["file,emotion,speaker"]
    for clip in corpus_root.rglob("*.wav"):
        speaker, _, emotion = clip.stem.split("_")
        rows.append(f"{clip},{'fröhlich' if emotion == 'happiness' else emotion},{speaker}")
    (tmp_path / "m.csv").write_text("\n".join(rows), encoding="utf-8")
    command = ["train", "csv", tmp_path / "m.csv", "--output", tmp_path / "run", "--set", "n_units=4"]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.run(
        [*SERFAST, *map(str, command), "--set", "n_epochs=1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **ascii_only},
    )
    assert "fr\\xf6hlich" in process.stdout


def test_a_model_that_needs_the_speaker_asks_for_recordings(corpus_root: Path, tmp_path: Path):
    quick = ("--set", "n_units=4", "--set", "n_epochs=1")
    output = tmp_path / "run"
    options = ("--pooling", "last", "--set", "normalisation=speaker")
    run("train", "synthetic", corpus_root, "--output", output, *options, *quick)
    clips = sorted(corpus_root.rglob("*.wav"))[:3]
    process = run("explain", output, clips[0], code=1)
    assert "--enroll must name recordings of the speaker" in process.stderr
    enrolled = ("--enroll", clips[1], "--enroll", clips[2])
    printed = run("explain", output, clips[0], "--output", tmp_path, *enrolled).stdout
    assert "pools without attention weights (pooling last): none are drawn" in printed
    predicted = Recognizer.load(output).enroll(clips[1:]).predict(clips[:1])[0]
    assert json.loads((tmp_path / f"{clips[0].stem}.json").read_text())["probabilities"] == predicted.probabilities


def test_features_are_extracted_and_a_broken_file_gives_a_non_zero_exit(corpus_root: Path, tmp_path: Path):
    assert "32 utterances" in run("features", "synthetic", corpus_root, tmp_path / "store").stdout
    assert len(FeatureStore.open(tmp_path / "store").lengths) == 32
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    clip = sorted(corpus_root.rglob("*.wav"))[0]
    (tmp_path / "m.csv").write_text(f"file,emotion,speaker\nbroken.wav,sad,a\n{clip},happy,b\n")
    process = run("features", "csv", tmp_path / "m.csv", tmp_path / "other", code=1)
    assert "broken: broken.wav" in process.stderr


def test_evaluate_shows_a_finished_run(trained: Path):
    assert "validation part" in run("evaluate", trained).stdout


def test_of_several_processes_the_first_prints(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "validation part" in run("evaluate", trained).stdout
    monkeypatch.setenv("RANK", "1")
    assert run("evaluate", trained).stdout == ""


def test_an_error_is_one_line_and_a_traceback_under_debug(corpus_root: Path, tmp_path: Path):
    process = run("train", "emodb", tmp_path / "nowhere", code=1)
    assert process.stderr.startswith("error: ")
    assert len(process.stderr.strip().splitlines()) == 1
    assert "nowhere" in process.stderr
    assert "Traceback" in run("--debug", "train", "emodb", tmp_path / "nowhere", code=1).stderr
    assert "Traceback" in run("train", "emodb", tmp_path / "nowhere", "--debug", code=1).stderr
    assert (
        "--set must not name pooling" in run("train", "synthetic", corpus_root, "--set", "pooling=mean", code=1).stderr
    )
    assert "options must be among" in run("train", "synthetic", corpus_root, "--set", "lr=1", code=1).stderr
    assert "No such command" in run("fly", code=2).stderr


def test_interruption_leaves_a_run_that_goes_on(corpus_root: Path, tmp_path: Path):
    command = [
        "cross-validate",
        "synthetic",
        corpus_root,
        "--output",
        tmp_path / "run",
        "--set",
        "n_units=8",
        "--set",
        "n_epochs=8",
        "--set",
        "patience=8",
        "--jobs",
        "2",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*SERFAST, *map(str, command)], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for line in process.stderr:
            if "epoch  1/8" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "the same command goes on" in rest
    assert "fold 4/4" in run(*command).stderr


def test_paper_runs_the_rows_named_and_writes_table_and_figures(corpus_root: Path, tmp_path: Path):
    arguments = ["paper", "synthetic", corpus_root, "--output", tmp_path / "paper", "--store", tmp_path / "stores"]
    arguments += ["--rows", "greedy_eq9,svm", "--set", "n_units=6", "--set", "n_epochs=1", "--utterance", UTTERANCE]
    printed = run(*arguments).stdout
    for title in ("BLSTM, mean: baseline", "Greedy + attention", "SVM on functionals"):
        assert title in printed
    assert "no intervals and no tests" in printed
    rows = list(csv.DictReader((tmp_path / "paper" / "table.csv").open()))
    assert [row["name"] for row in rows] == ["mean", "greedy_eq9", "svm"]
    figures = tmp_path / "paper" / "attention" / "greedy_eq9"
    names = {path.name for path in figures.iterdir()}
    assert {"correlations.csv", "figure-4.png", "voicing.svg", "position.png"} <= names
    assert [name for name in names if name.startswith("figure-3") and name.endswith("png")] == [
        f"figure-3-{UTTERANCE.removesuffix('.wav').replace('/', '%2F')}.png"
    ]
    assert len(list(csv.DictReader((figures / "correlations.csv").open()))) == 32
    assert "rows must be among lstm_last" in run("paper", "synthetic", corpus_root, "--rows", "best", code=1).stderr
    for wrong in ("lr=1", "progress=false"):
        process = run("paper", "synthetic", corpus_root, "--set", wrong, code=1)
        assert re.search(f"options must be among n_decoder_final, .*, got {wrong.split('=')[0]}", process.stderr)
