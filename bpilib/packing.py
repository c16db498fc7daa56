"""Texts side by side: a few full rows of tokens, in which what several texts begin with stands once.

In a causal transformer a token sees its text up to itself and nothing else. So texts that begin alike have the same
values there, and a row that holds several texts gives each of them what it gets alone, provided that every token has
its own text's position, and a mask lets it see the beginning of its own text only.
"""

from typing import NamedTuple

import numpy as np

ROOM = 96  # tokens of a row: longer rows are filled better, shorter ones attend to less
SHORT = 12  # tokens; texts of so many or fewer are laid last, into the gaps


class Packed(NamedTuple):
    """R rows of L tokens.

    Attributes:
        tokens: (R, L) int64; 0 where no text is.
        positions: (R, L) int64, of each token in its text.
        seen: (R, L, L) bool, which tokens (last axis) a token sees; itself at least.
        ends: (n,) int64, where the last token of each text lies in the flattened rows.
    """

    tokens: np.ndarray
    positions: np.ndarray
    seen: np.ndarray
    ends: np.ndarray


def pack(texts: list[list[int]], room: int = ROOM) -> Packed:
    """Lay texts out in rows, best fit: where most of a text's beginning is, then where least room is left.

    Args:
        texts: n texts of at least one token each.
        room: tokens of a row, or those of the longest text if that has more.
    """
    room = max(room, *map(len, texts))
    used: list[int] = []  # tokens by row
    last: list[int] = []  # text laid last, by row
    where: list[tuple[int, np.ndarray]] = [None] * len(texts)  # row, place of each token in it
    fresh = [0] * len(texts)  # tokens of the text that stood there before it
    for i in sorted(range(len(texts)), key=lambda i: (len(texts[i]) <= SHORT, texts[i])):
        shared = [_shared(texts[i], texts[j]) for j in last]
        fits = [row for row, there in enumerate(shared) if used[row] + len(texts[i]) - there <= room]
        row = max(fits, key=lambda row: (shared[row], used[row]), default=len(used))
        if row == len(used):
            used.append(0), last.append(i), shared.append(0)
        more = np.arange(used[row], used[row] + len(texts[i]) - shared[row])
        where[i] = row, np.concatenate([where[last[row]][1][: shared[row]], more]) if shared[row] else more
        fresh[i], last[row], used[row] = shared[row], i, used[row] + len(more)
    length = max(used)
    tokens, positions = np.zeros((2, len(used), length), np.int64)
    seen = np.repeat(np.eye(length, dtype=bool)[None], len(used), 0)
    for text, (row, at), start in zip(texts, where, fresh):
        tokens[row, at], positions[row, at] = text, np.arange(len(text))
        seen[row, at[start:, None], at] = np.tri(len(text), dtype=bool)[start:]
    return Packed(tokens, positions, seen, np.array([row * length + at[-1] for row, at in where]))


def _shared(one: list[int], other: list[int]) -> int:
    """Tokens that two texts begin with alike."""
    for count, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return count
    return min(len(one), len(other))
