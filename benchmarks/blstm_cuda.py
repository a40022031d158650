"""Two bidirectional LSTM layers on a GPU, 28 inputs, float32: serfast against torch.nn.LSTM, forward and with backward.

Batches are of equal lengths and of lengths like IEMOCAP's (up to the longest named), for one model and for ten side by
side. serfast runs as one CUDA graph per step and without, and in both precisions. Peers: torch.nn.LSTM on packed
sequences, which is right, and on padded ones, whose reverse direction starts inside the padding; both with torch's
default of TF32, their batches made outside the timer. Ten models of a peer are ten times one. Times are medians of CUDA
events in three runs that take turns. The errors that stand beside them are relative to a double-precision LSTM. Run::

    python -m benchmarks.blstm_cuda [--output FILE]
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from benchmarks.attention_pool_cuda import N_RUNS, Work, captured, median_ms
from benchmarks.machine import machine
from serfast.models import BLSTM
from serfast.ops import Groups, Lengths

N_FEATURES = 28
Layer = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """One workload: ``longest`` frames, all utterances alike or as varied as IEMOCAP's."""

    n_units: int
    n_utterances: int
    longest: int
    is_varied: bool
    n_models: int = 1

    def lengths(self) -> list[int]:
        if not self.is_varied:
            return [self.longest] * self.n_utterances
        generator = np.random.default_rng(0)
        drawn = np.clip(generator.lognormal(np.log(370), 0.6, self.n_utterances), 60, self.longest).astype(int)
        return [self.longest, *(int(length) for length in drawn[1:])]


CASES = (
    Case(128, 32, 450, is_varied=False),
    Case(128, 32, 1034, is_varied=True),
    Case(128, 64, 1546, is_varied=True),
    Case(256, 32, 450, is_varied=False),
    Case(256, 64, 1546, is_varied=True),
    Case(128, 32, 1034, is_varied=True, n_models=10),
)


def ours(lstm: nn.LSTM, utterances: list[Tensor], n_models: int, precision: str) -> tuple[Layer, nn.Module]:
    """``n_models`` models with the weights of one LSTM, each on its own copy of the batch."""
    device = utterances[0].device
    rows = torch.cat(utterances * n_models)
    lengths = Lengths.packed(torch.tensor([len(frames) for frames in utterances] * n_models), device=device)
    if n_models == 1:
        model = BLSTM(N_FEATURES, lstm.hidden_size, precision=precision).to(device)
        model.load_state_dict(lstm.state_dict())
        return lambda: model(rows, lengths), model
    models = BLSTM(N_FEATURES, lstm.hidden_size, n_groups=n_models, precision=precision).to(device)
    models.load_state_dict({name: torch.stack([weight] * n_models) for name, weight in lstm.state_dict().items()})
    of_each = torch.arange(n_models).repeat_interleave(len(utterances))
    groups = Groups.of(of_each, len(of_each), n_models, device)
    return lambda: models(rows, lengths, groups), models


def peers(lstm: nn.LSTM, utterances: list[Tensor]) -> dict[str, Layer]:
    padded, packed = pad_sequence(utterances, batch_first=True), pack_sequence(utterances, enforce_sorted=False)
    return {"torch packed": lambda: lstm(packed)[0].data, "torch padded": lambda: lstm(padded)[0]}


def step(layer: Layer, module: nn.Module, slopes: Tensor | None) -> list[Tensor]:
    """Hidden vectors, and the gradients of the weights where there are slopes."""
    if slopes is None:
        with torch.no_grad():
            return [layer()]
    hidden = layer()
    return [hidden.detach(), *torch.autograd.grad(hidden, list(module.parameters()), slopes)]


def errors(lstm: nn.LSTM, utterances: list[Tensor], precision: str) -> dict[str, float]:
    """Relative errors of hidden vectors and of the worst gradient, of one model."""
    exact = nn.LSTM(N_FEATURES, lstm.hidden_size, 2, batch_first=True, bidirectional=True)
    exact.load_state_dict(lstm.state_dict())
    exact = exact.double().to(utterances[0].device)
    layer, model = ours(lstm, utterances, 1, precision)
    slopes = torch.randn_like(layer())
    found = step(layer, model, slopes)
    truth = step(lambda: torch.cat([exact(frames.double())[0] for frames in utterances]), exact, slopes.double())
    gradients = dict(zip((name for name, _ in model.named_parameters()), found[1:], strict=True))
    relative = [
        float((gradients[name] - best).norm() / best.norm())
        for (name, _), best in zip(exact.named_parameters(), truth[1:], strict=True)
    ]
    return {"hidden": float((found[0] - truth[0]).norm() / truth[0].norm()), "gradients": max(relative)}


def measure(case: Case, direction: str, device: str) -> dict[str, object]:
    torch.manual_seed(0)
    lengths = case.lengths()
    utterances = [torch.randn(length, N_FEATURES, device=device) for length in lengths]
    lstm = nn.LSTM(N_FEATURES, case.n_units, 2, batch_first=True, bidirectional=True).to(device)
    has_slopes = direction == "forward+backward"
    works: dict[str, Work] = {}
    for precision in ("high", "highest"):
        layer, model = ours(lstm, utterances, case.n_models, precision)
        slopes = torch.randn_like(layer()) if has_slopes else None
        run = partial(step, layer, model, slopes)
        works[f"serfast {precision}"] = captured(run) if device == "cuda" else run
        if precision == "high":
            works["serfast without graph"] = run
    for name, layer in peers(lstm, utterances).items():
        slopes = torch.randn_like(layer()) if has_slopes else None
        works[name] = partial(step, layer, lstm, slopes)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(N_RUNS):
        for name, work in works.items():
            n_times = case.n_models if name.startswith("torch") else 1
            times[name].append(n_times * median_ms(work, device))
    fastest = times["serfast high"]
    return {
        "workload": f"{case.n_models} x {case.n_units} units, {case.n_utterances} utterances of "
        f"{'IEMOCAP-like lengths to ' if case.is_varied else ''}{case.longest} frames",
        "direction": direction,
        "valid_frames": sum(lengths),
        "median_ms": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "us_per_layer_and_step": [round(1000 * value / 2 / max(lengths), 3) for value in fastest],
        "times_faster": {
            name: [round(peer / own, 1) for peer, own in zip(times[name], fastest, strict=True)]
            for name in ("torch packed", "torch padded")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="the CPU only tries the module out")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args()
    results = []
    for case in CASES:
        for direction in ("forward", "forward+backward"):
            results.append(measure(case, direction, arguments.device))
            print(json.dumps(results[-1]), flush=True)
    torch.manual_seed(0)
    utterances = [torch.randn(length, N_FEATURES, device=arguments.device) for length in (1, 300, 1546)]
    accuracy = {}
    for n_units in (128, 256):
        lstm = nn.LSTM(N_FEATURES, n_units, 2, batch_first=True, bidirectional=True).to(arguments.device)
        for precision in ("high", "highest"):
            accuracy[f"{n_units} units, {precision}"] = errors(lstm, utterances, precision)
    print(json.dumps(accuracy))
    if arguments.output is not None:
        gpu = torch.cuda.get_device_name() if arguments.device == "cuda" else "none"
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found = {"machine": machine(), **versions, "gpu": gpu, "errors": accuracy, "results": results}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
