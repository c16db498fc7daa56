"""Compiled functions: what Python computes, kept where that is possible."""

import numba
import numpy as np
import pytest

from bpilib import jit


def total(numbers):
    result = 0.0
    for number in numbers:
        result += number
    return result


@pytest.mark.parametrize("folders", [True, False], ids=["kept", "nowhere to keep it"])
def test_it_computes_the_same_with_and_without_a_folder(folders, monkeypatch, tmp_path):
    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache") and not folders:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(jit, "njit", njit)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    function = jit.compiled(total, fastmath={"contract"})
    assert function(np.arange(5.0)) == 10
    assert bool(list(tmp_path.rglob("*.nbi"))) == folders
    assert all(options["nogil"] and options["fastmath"] == {"contract"} for options in asked)
