"""What tests share: the real corpus, made-up features and results, devices, and a cache that is thrown away."""

import ctypes
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.library import Library

from serfast.corpora import Corpus, Utterance
from serfast.evaluation import FoldResult, Result, UtterancePrediction
from serfast.evaluation.results import score_predictions
from serfast.features import FeatureOptions, FeatureStore, StoreWriter, feature_names
from serfast.ops import has_cuda_kernels

# Tests of accuracy share the signals of the benchmarks. Last, so that the installed serfast goes before the sources.
sys.path.append(str(Path(__file__).parents[1]))

EMOTIONS = ("anger", "neutral", "sadness")
OPERATORS = ["attention_pool", "attention_pool_backward", "blstm_recurrence", "blstm_recurrence_backward", "linear"]


@pytest.fixture(autouse=True, scope="session")
def throwaway_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERFAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Processes that tests start must import the installed serfast, not the sources beside them.
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield


@pytest.fixture
def emodb_root() -> Path:
    root = os.environ.get("SERFAST_EMODB")
    if not root:
        pytest.skip("needs the EmoDB recordings: set SERFAST_EMODB to the folder that holds wav/")
    return Path(root)


@pytest.fixture
def processes() -> None:
    if not os.environ.get("SERFAST_PROCESS_TESTS"):
        pytest.skip("starts and stops processes, and waits for them: set SERFAST_PROCESS_TESTS=1")


@pytest.fixture
def cuda() -> torch.device:
    """A CUDA device that the kernels were built for."""
    if not (torch.cuda.is_available() and has_cuda_kernels()):
        give_up = pytest.fail if os.environ.get("SERFAST_REQUIRE_CUDA") == "1" else pytest.skip
        give_up("needs a CUDA device and serfast._C_cuda")
    return torch.device("cuda")


@pytest.fixture
def full_precision_products() -> Iterator[None]:
    """Torch's own products on CUDA are not rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "emulated_cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A CUDA device, or the CPU with operators that run the source of the CUDA kernels on an emulated device."""
    request.getfixturevalue(request.param)
    return torch.device("cuda" if request.param == "cuda" else "cpu")


@pytest.fixture(scope="session")
def emulated_cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels, built for the emulated device and registered for CUDA tensors."""
    if has_cuda_kernels() or torch.cuda.is_available():
        pytest.skip("a CUDA device, or its kernels, are there themselves")
    from tests.emulated_cuda.build import CAN_BUILD, build_kernels

    if not CAN_BUILD:
        pytest.skip("needs Linux and g++")
    sanitized = os.environ.get("SERFAST_SANITIZED_CUDA") == "1"
    library = build_kernels(tmp_path_factory.mktemp("emulated_cuda"), sanitized=sanitized)
    torch.ops.load_library(library)
    return library


@pytest.fixture
def emulated_cuda(emulated_cuda_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """Operators on the CPU run the CUDA kernels. The library's functions set what the device is."""
    library = ctypes.CDLL(str(emulated_cuda_library))
    _reset(library)
    kernels = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    overrides = Library("serfast", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the CPU's kernels are overridden
        for name in OPERATORS:
            operator = getattr(torch.ops.serfast, name).default
            overrides.impl(name, functools.partial(operator.redispatch, kernels), "CPU")
    monkeypatch.setattr(sys.modules["serfast.ops.blstm"], "_n_lanes", lambda tensor: 1)  # CUDA's order of gates
    monkeypatch.setattr(sys.modules["serfast.ops.linear"], "_is_on_cuda", lambda tensor: True)
    yield library
    overrides._destroy()
    _reset(library)


def _reset(library: ctypes.CDLL) -> None:
    library.emulated_cuda_schedule(0)
    library.emulated_cuda_capability(9)
    library.emulated_cuda_most_cluster_blocks(8)


@pytest.fixture
def tiny_store(tmp_path: Path) -> FeatureStore:
    return _make_store(tmp_path / "store")


@pytest.fixture
def make_store() -> Callable[..., FeatureStore]:
    return _make_store


def _make_store(
    path: Path,
    *,
    n_speakers: int = 6,
    n_utterances: int = 9,
    separation: float = 1.0,
    seed: int = 0,
    options: FeatureOptions | None = None,
) -> FeatureStore:
    """A store of random features in which the emotion shifts the first features by ``separation`` deviations.

    It shifts a third of the power spectrum, too; voiced frames come in runs.
    """
    generator = np.random.default_rng(seed)
    options = options or FeatureOptions()
    names = feature_names(options)
    bins = [place for place, name in enumerate(names) if name.startswith("log_power_")]
    utterances, features = [], []
    for speaker in range(n_speakers):
        for number in range(n_utterances):
            emotion = number % len(EMOTIONS)
            utterances.append(
                Utterance(
                    key=f"s{speaker}_{number}",
                    path=Path(f"s{speaker}_{number}.wav"),
                    emotion=EMOTIONS[emotion],
                    speaker=f"s{speaker}",
                    gender="female" if speaker % 2 else "male",
                )
            )
            frames = generator.standard_normal((generator.integers(5, 40), len(names))).astype(np.float32)
            frames[:, emotion] += separation
            frames[:, bins[emotion :: len(EMOTIONS)]] += separation
            if options.voiced:
                voiced = np.repeat(generator.integers(0, 2, len(frames)), 4)
                frames[:, names.index("voiced")] = voiced[: len(frames)]
            features.append(frames)
    writer = StoreWriter(path, options, names)
    for utterance, frames in zip(utterances, features, strict=True):
        writer.append(utterance.key, f"content of {utterance.key}", frames)
    corpus = Corpus("made-up", tuple(utterances), EMOTIONS)
    store = writer.finish(corpus, {utterance.key: f"content of {utterance.key}" for utterance in utterances}, {})
    writer.close()
    return store


@pytest.fixture
def make_result() -> Callable[..., Result]:
    return _make_result


def _make_result(
    *,
    right: float = 0.6,
    n_speakers: int = 6,
    n_utterances: int = 12,
    seed: int = 0,
    choices: dict | None = None,
    **changes: object,
) -> Result:
    """A finished cross-validation of no model: a fold per speaker, each answer right with probability ``right``."""
    generator = np.random.default_rng(seed)
    predictions = []
    for speaker in range(n_speakers):
        for number in range(n_utterances):
            truth = EMOTIONS[number % len(EMOTIONS)]
            answer = truth if generator.random() < right else EMOTIONS[generator.integers(len(EMOTIONS))]
            probabilities = {emotion: float(emotion == answer) for emotion in EMOTIONS}
            row = (f"speaker_s{speaker}", f"s{speaker}_{number}", f"s{speaker}", truth, answer, probabilities)
            predictions.append(UtterancePrediction(*row))
    folds = tuple(
        FoldResult(
            name,
            score_predictions([row for row in predictions if row.fold == name], EMOTIONS),
            2,
            1,
            0.5,
            choices or {},
            {},
        )
        for name in sorted({row.fold for row in predictions})
    )
    facts = {
        "corpus": "made-up",
        "protocol": "leave_one_speaker_out",
        "part": "test",
        "emotions": EMOTIONS,
        "pooled": score_predictions(predictions, EMOTIONS),
        "folds": folds,
        "predictions": tuple(predictions),
        "splits_digest": "5eed",
        "training_seconds": 1.0,
        "excluded": (),
        "notes": (),
        "output": Path("nowhere"),
    }
    return Result(**{**facts, **changes})
