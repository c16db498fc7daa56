"""Compiled functions: what Python computes, kept where that is possible."""

import os

import numba
import numpy as np
import pytest

from bpilib.ops import jit


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
    function = jit.compile_numba(total, fastmath={"contract"})
    assert function(np.arange(5.0)) == 10
    assert bool(list(tmp_path.rglob("*.nbi"))) == folders
    assert all(options["nogil"] and options["fastmath"] == {"contract"} for options in asked)


def halved(number):
    return number / 2


def test_whether_a_function_must_be_compiled_is_known_before(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    first = jit.compile_numba(halved)
    assert not jit.is_compiled(first)
    assert first(3.0) == 1.5
    assert jit.is_compiled(first)
    assert jit.is_compiled(jit.compile_numba(halved))  # as in another process
    for file in tmp_path.rglob("*.nbi"):
        os.utime(file, (0, 0))  # older than the code: numba compiles again
    assert not jit.is_compiled(jit.compile_numba(halved))
    assert jit.is_compiled(first)


def test_a_function_that_is_kept_nowhere_must_be_compiled():
    function = numba.njit(halved)
    assert not jit.is_compiled(function)
    function(3.0)
    assert jit.is_compiled(function)
