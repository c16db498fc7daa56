"""Intervals."""

import numpy as np

from bpilib.metrics import wilson


def test_wilson_interval_equals_the_textbook():
    found = [wilson(*case) for case in ((50, 10), (100, 10), (0, 10), (0, 0))]
    np.testing.assert_allclose(found, [(23.66, 76.34), (72.25, 100), (0, 27.75), (0, 100)], atol=0.01)
