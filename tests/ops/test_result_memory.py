"""Memory of large results is used again, but never while a result still lives."""

import gc
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psutil
import pytest
import torch
from torch import Tensor

from serfast.ops import Lengths, attention_pool
from serfast.ops.linear import linear

MIB = 1 << 20


def _rows(n_rows: int, value: float) -> Tensor:
    """A result of ``n_rows`` KiB, every number of which is ``value``."""
    return linear(torch.ones(n_rows, 1), torch.full((256, 1), value))


def test_a_result_that_lives_is_never_overwritten() -> None:
    kept = {}
    for step in range(40):
        result = _rows(5_000 + 700 * (step % 7), float(step))
        if step % 3 == 0:
            kept[step] = result
    assert all(bool((result == step).all()) for step, result in kept.items())
    views = {step: result[100:200].numpy() for step, result in kept.items() if step % 2}
    del kept
    gc.collect()
    _rows(9_000, -1.0)
    for step, view in views.items():
        assert (view == step).all()


def test_threads_share_it() -> None:
    def work(place: int) -> bool:
        results = [(value, _rows(5_000 + value, float(value))) for value in range(place, place + 20)]
        return all(bool((result == value).all()) for value, result in results)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(0, 160, 20)))


def test_it_does_not_grow() -> None:
    process = psutil.Process()
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(5_000, 60_000, (200,), generator=generator).tolist()
    for size in sizes[:50]:
        _rows(size, 1.0)
    before = process.memory_info().rss
    for size in sizes:
        _rows(size, 1.0)
    assert process.memory_info().rss - before < 100 * MIB  # one result of the largest size and a little


PREAMBLE = """
import random, sys, psutil, torch
from serfast.ops.linear import linear

def rows(n_rows):
    return linear(torch.ones(n_rows, 1), torch.ones(256, 1))

def resident():
    return psutil.Process().memory_info().rss
"""


def _printed(program: str) -> list[int]:
    """The whole numbers that a program prints in a fresh process, whose memory nothing else has used."""
    return [
        int(word) for word in subprocess.check_output([sys.executable, "-c", PREAMBLE + program], text=True).split()
    ]


def test_what_waits_makes_room_for_a_result_that_it_does_not_fit() -> None:
    used, waiting, replaced = _printed("""
results = [rows(20_000) for _ in range(10)]
print(resident())
del results
print(resident())
result = rows(190_000)
print(resident())
""")
    assert abs(waiting - used) < 40 * MIB
    assert abs(replaced - used) < 40 * MIB


def test_memory_is_bounded_while_other_results_live() -> None:
    held, most = _printed("""
generator, kept, live, most = random.Random(0), [], 0, 0
before = resident()
for _ in range(1500):
    n_rows = generator.randint(5_000, 20_000)
    kept.append(rows(n_rows))
    live += n_rows
    most = max(most, live)
    if len(kept) > 30:
        live -= len(kept.pop(generator.randrange(30)))
print(resident() - before, most * 1024)
""")
    assert held < 1.5 * most + 40 * MIB


def test_no_more_than_a_gibibyte_waits() -> None:
    (held,) = _printed("""
before = resident()
results = [rows(25_000) for _ in range(60)]
del results
print(resident() - before)
""")
    assert 900 * MIB < held < 1064 * MIB


def test_a_block_serves_results_down_to_two_thirds_of_its_size() -> None:
    larger, serves, does_not = _printed("""
others = [rows(60_000) for _ in range(3)]
del others
for n_rows in (30_000, 21_000, 19_000):
    print(rows(n_rows).data_ptr())
""")
    assert serves == larger
    assert does_not != larger


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the address space")
def test_what_waits_is_given_back_before_memory_runs_out() -> None:
    (n_rows,) = _printed("""
import resource
rows(10)
limit = psutil.Process().memory_info().vms + (1400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
results = [rows(20_000) for _ in range(50)]
del results
print(len(rows(600 * 1024)))
""")
    assert n_rows == 600 * 1024


def test_a_shape_that_overflows_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        torch.ops.serfast.linear(torch.empty(1537228672809828352, 0), torch.empty(3, 0), torch.ones(3))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere processes are not forked")
def test_a_process_forked_while_a_thread_takes_memory_goes_on() -> None:
    stop = Event()

    def take() -> None:
        while not stop.is_set():
            for n_rows in (4_100, 7_000, 11_000):  # none fits the block of another
                _rows(n_rows, 1.0)

    with ThreadPoolExecutor(6) as threads:
        busy = [threads.submit(take) for _ in range(6)]
        try:
            for _ in range(150):
                child = os.fork()
                if child == 0:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(10)  # ends a child that waits for a lock
                    torch.set_num_threads(1)  # OpenMP's threads are not forked
                    os._exit(0 if bool((_rows(4_100, 2.0) == 2).all()) else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
        for thread in busy:
            thread.result()


def test_gradients_of_two_backward_passes_are_apart() -> None:
    hidden = torch.randn(20_000, 64, requires_grad=True)
    lengths, query = Lengths.packed(torch.full((20,), 1_000)), torch.randn(64)
    context, _ = attention_pool(hidden, lengths, query)
    (first,) = torch.autograd.grad(context.sum(), hidden, retain_graph=True)
    copy = first.clone()
    (second,) = torch.autograd.grad(2 * context.sum(), hidden)
    torch.testing.assert_close(first, copy, rtol=0, atol=0)
    torch.testing.assert_close(second, 2 * copy)
