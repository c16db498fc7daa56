"""The figure of attention's evenness shows the table's numbers."""

import numpy as np
import pandas as pd
import pytest

from bpilib.plots.evenness import attention_evenness


def test_dots_are_the_table_s_numbers():
    rows = [(run, part, head, 60.0 + head, 95.0 + head / 2)
            for run in ("a", "b") for part in ("torso", "arm", "leg") for head in (1, 2)]  # fmt: skip
    figure = attention_evenness(pd.DataFrame(rows, columns=["run", "part", "head", "trained", "untrained"]))
    assert [ax.get_title() for ax in figure.axes] == ["torso", "arm", "leg"]
    for ax in figure.axes:
        dots = [np.asarray(c.get_offsets())[:, 0].tolist() for c in ax.collections[:4]]
        assert dots == [[95.5, 96.0], [61.0, 62.0]] * 2  # by run: before, after
    with pytest.raises(ValueError, match="untrained"):
        attention_evenness(pd.DataFrame(rows, columns=["run", "part", "head", "trained", "before"]))
