"""Texts in rows: nothing lost, everything seen that a text alone would see, and nothing else."""

import numpy as np
import pytest

from bpilib.text.clip import pack

START, END = 90, 99


def texts(seed=0, count=40, names=6, longest=30):
    """Texts that begin with one of a few names, as the prompts of a class do; some are short."""
    rng = np.random.default_rng(seed)
    heads = [rng.integers(1, 80, 3).tolist() for _ in range(names)]
    return [
        [START, *heads[rng.integers(names)], *rng.integers(1, 80, rng.integers(longest)).tolist(), END]
        for _ in range(count)
    ]


@pytest.mark.parametrize("room", [8, 40, 96, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_every_text_sees_itself_and_nothing_else(room, seed):
    given = texts(seed)
    packed = pack(given, room)
    rows, length = packed.tokens.shape
    assert length <= max(room, max(map(len, given)))
    assert packed.positions.shape == (rows, length) and packed.seen.shape == (rows, length, length)
    for text, end in zip(given, packed.ends):
        row, at = divmod(int(end), length)
        seen = np.flatnonzero(packed.seen[row, at])
        order = seen[np.argsort(packed.positions[row, seen])]
        assert packed.tokens[row, order].tolist() == text
        assert packed.positions[row, order].tolist() == list(range(len(text)))
        for n, place in enumerate(order, 1):  # what a token on the way sees is the text up to it
            assert set(np.flatnonzero(packed.seen[row, place])) == set(order[:n])


def test_every_token_sees_itself():
    packed = pack(texts(), 50)
    assert packed.seen[:, np.arange(packed.seen.shape[1]), np.arange(packed.seen.shape[1])].all()


def test_what_texts_begin_with_stands_once():
    packed = pack([[START, 1, 2, 3, END], [START, 1, 2, 4, 5, END], [START, 7, END]], 20)
    assert packed.tokens.shape == (1, 5 + 3 + 2)
    assert sorted(packed.tokens[0].tolist()) == sorted([START, 1, 2, 3, END, 4, 5, END, 7, END])


def test_equal_texts_share_their_end():
    packed = pack([[START, 1, END], [START, 2, END], [START, 1, END]], 20)
    assert packed.ends[0] == packed.ends[2] != packed.ends[1]
    assert packed.tokens.shape == (1, 5)


def test_one_text_is_itself():
    packed = pack([[START, 5, END]])
    assert packed.tokens.tolist() == [[START, 5, END]] and packed.positions.tolist() == [[0, 1, 2]]
    assert packed.seen.tolist() == [np.tri(3, dtype=bool).tolist()] and packed.ends.tolist() == [2]


def test_a_text_longer_than_a_row_makes_rows_longer():
    packed = pack([[START, *range(1, 11), END], [START, 50, END]], 4)
    assert packed.tokens.shape == (2, 12)


def test_rows_are_full():
    given = texts(count=200)
    tokens = len({tuple(text[:n]) for text in given for n in range(1, len(text) + 1)})  # each beginning once
    assert pack(given).tokens.size < 1.15 * tokens
    assert pack(given).tokens.size < 0.9 * sum(map(len, given))
