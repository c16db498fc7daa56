"""As many CPU threads as cores are free, unless somebody says how many."""

import pytest
import torch

from bpilib.system import threads
from bpilib.system.threads import choose_threads, free_cores


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 2, 4, 6}, raising=False)
    free_cores.cache_clear()
    yield
    free_cores.cache_clear()


@pytest.mark.parametrize(
    ("busy", "free"),
    [([0, 100, 0, 100, 0, 100, 0, 100], 4), ([100] * 8, 1), ([100, 0, 10, 0, 5, 0, 0, 0], 3), ([60, 0] * 4, 2)],
)
def test_cores_of_others_are_left_to_them(monkeypatch, busy, free):
    """Of eight, of which this process may use every second."""
    monkeypatch.setattr(threads.psutil, "cpu_percent", lambda *_, **__: [float(b) for b in busy])
    assert choose_threads(None) == free
    assert choose_threads(None, processes=2) == max(1, free // 2)
    monkeypatch.setattr(threads.psutil, "cpu_percent", lambda *_, **__: pytest.fail("measured again"))
    assert choose_threads(None) == free and choose_threads(7) == 7


def test_the_environment_s_word_counts(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    assert choose_threads(None) == torch.get_num_threads() and choose_threads(3) == 3
