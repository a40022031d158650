"""Ten folds on a corpus of IEMOCAP's size and shape: all folds one after the other, in processes, and side by side.

The corpus is made up: 4,490 utterances of ten speakers in five sessions, four emotions, log-normal lengths (mean 450
frames, sigma 0.6, 60 to 3400), 28 random descriptors. Protocol ``paper``, 2 x 128 units, attention with eq. 9, batches
of 32, evaluation and saving included; a corpus of few utterances shows what starting costs. Beside it stands an epoch
of one fold with torch.nn.LSTM, packed (which computes the same thing) and padded (which does not): a sample of its
batches, each of like length, forward, backward and step, scaled by their frames. On a GPU the folds side by side run
once more under torch's profiler, for the share of the time from the first kernel to the last in which none runs; what
the profiler takes adds to it. Run::

    python -m benchmarks.folds [--utterances 4490] [--epochs 1] [--modes two_processes side_by_side] [--output FILE]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name)
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import serfast
from benchmarks.machine import machine
from serfast.corpora import Corpus, Utterance
from serfast.features import FeatureOptions, FeatureStore, StoreWriter
from serfast.ops import resolve_device
from serfast.training.batches import shuffled_batches

EMOTIONS = ("angry", "happy", "neutral", "sad")
N_SPEAKERS, N_UNITS, BATCH = 10, 128, 32
N_SAMPLED = 3  # batches of a peer's epoch
MODES: dict[str, dict[str, Any]] = {
    "one after the other": {"side_by_side": False},
    "two processes": {"jobs": 2},
    "side by side": {"side_by_side": True},
}


def make_store(folder: Path, n_utterances: int) -> FeatureStore:
    generator = np.random.default_rng(0)
    lengths = np.exp(np.log(450) - 0.6**2 / 2 + 0.6 * generator.standard_normal(n_utterances))
    lengths = lengths.astype(int).clip(60, 3400)
    names, utterances = serfast.feature_names(), []
    writer = StoreWriter(folder, FeatureOptions(), names)
    for number, length in enumerate(lengths):
        speaker, key = number % N_SPEAKERS, f"u{number}"
        emotion = int(generator.integers(len(EMOTIONS)))
        frames = generator.standard_normal((length, len(names)), dtype=np.float32)
        frames[:, emotion] += 0.2
        writer.append(key, key, frames)
        gender, session = ("female", "male")[speaker % 2], f"session{1 + speaker // 2}"
        utterances.append(
            Utterance(key, Path(f"{key}.wav"), EMOTIONS[emotion], f"s{speaker}", gender=gender, session=session)
        )
    store = writer.finish(Corpus("made-up", tuple(utterances), EMOTIONS), {u.key: u.key for u in utterances}, {})
    writer.close()
    return store


def cross_validation(store: FeatureStore, folder: Path, n_epochs: int, options: dict[str, Any]) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time()
    serfast.cross_validate(
        store,
        protocol="paper",
        output=folder,
        pooling="eq9",
        n_units=N_UNITS,
        batch_size=BATCH,
        n_epochs=n_epochs,
        patience=n_epochs,
        progress=False,
        **options,
    )
    return {"wall_s": time.perf_counter() - started, "own_processor_s": time.process_time() - used}


def idle_share(store: FeatureStore, folder: Path) -> float:
    """Share of the time from the first kernel to the last of an epoch of ten folds in which the GPU does nothing."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        cross_validation(store, folder, 1, MODES["side by side"])
    ranges = [event.time_range for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    spans = sorted((span.start, span.end) for span in ranges)
    first = reached = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - reached)
        reached = max(reached, end)
    return idle / (reached - first)


class TorchModel(nn.Module):
    """The same model out of torch's own parts."""

    def __init__(self, *, packed: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, N_UNITS, 2, batch_first=True, bidirectional=True)
        self.query = nn.Parameter(torch.zeros(2 * N_UNITS))
        self.output = nn.Linear(2 * N_UNITS, len(EMOTIONS))
        self.packed = packed

    def forward(self, batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        if self.packed:
            sequence = pack_padded_sequence(batch, lengths, batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(self.lstm(sequence)[0], batch_first=True)
        else:
            hidden = self.lstm(batch)[0]
        is_padding = torch.arange(batch.shape[1], device=batch.device) >= lengths.to(batch.device)[:, None]
        weights = (hidden @ self.query).masked_fill(is_padding, -torch.inf).softmax(dim=1)
        logits: torch.Tensor = self.output(torch.einsum("bt,btu->bu", weights, hidden))
        return logits


def torch_epoch_s(store: FeatureStore, device: torch.device, *, packed: bool) -> float:
    """Seconds of an epoch of one fold, from a sample of its batches."""
    train = np.flatnonzero(np.arange(len(store.lengths)) % N_SPEAKERS >= 2)  # eight speakers of ten
    batches = shuffled_batches(train, store.lengths, BATCH, seed=0, epoch=1)
    model = TorchModel(packed=packed).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    frames, seconds = 0, 0.0
    for place, batch in enumerate(batches[: N_SAMPLED + 1]):
        rows = [torch.from_numpy(store.utterance_rows(int(index)).copy()) for index in batch]
        lengths = torch.tensor([len(own) for own in rows])
        padded, truth = pad_sequence(rows, batch_first=True).to(device), torch.zeros(len(rows), dtype=torch.long)
        float(padded.sum())
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(padded, lengths), truth.to(device))
        loss.backward()
        optimizer.step()
        float(loss.detach())
        if place > 0:  # the first warms up
            seconds += time.perf_counter() - started
            frames += int(lengths.sum())
    return seconds * int(store.lengths[train].sum()) / frames


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--utterances", type=int, default=4490)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=[name.replace(" ", "_") for name in MODES])
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args()
    device = resolve_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", arguments.utterances)
        found: dict[str, Any] = {
            "machine": machine(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "utterances": arguments.utterances,
            "frames": int(store.lengths.sum()),
            "epochs": arguments.epochs,
            "ten folds": {},
        }
        for name, options in MODES.items():
            if arguments.modes is None or name.replace(" ", "_") in arguments.modes:
                seconds = cross_validation(store, Path(folder) / name, arguments.epochs, options)
                found["ten folds"][name] = seconds
                print(f"ten folds, {name}: {seconds['wall_s']:.1f} s", flush=True)
        if device.type == "cuda":
            found["idle share of the GPU"] = idle_share(store, Path(folder) / "profiled")
            print(f"idle share of the GPU, side by side: {found['idle share of the GPU']:.3f}", flush=True)
        found["one fold, one epoch"] = {}
        for name, packed in (("torch packed", True), ("torch padded", False)):
            found["one fold, one epoch"][name] = torch_epoch_s(store, device, packed=packed)
            print(f"one epoch of one fold, {name}: {found['one fold, one epoch'][name]:.1f} s", flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
