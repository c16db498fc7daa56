#!/usr/bin/env python3
# ruff: noqa
"""Write synthetic NTU RGB+D raw ``.skeleton`` files (standard library only).

    make_raw.py OUT --set ntu60  --count 60 --seed 7     # clean, NTU60 names (setups 1-17)
    make_raw.py OUT --set ntu120 --count 60 --seed 8     # clean, NTU120 names (setups 1-32)
    make_raw.py OUT --set bulk60 --count 400 --seed 9    # realistic mix, mean ~85 frames
    make_raw.py OUT --set bad    --seed 10               # malformed or reference-breaking files

Setups 1-17 go to OUT/nturgb+d_skeletons, 18-32 to OUT/nturgb+d_skeletons120, and
OUT/manifest.json lists every file with its case, frame count, size and SHA-256.

Output depends on the arguments only: one random.Random per file, seeded by a string, and
nothing but + - * / and sqrt, so no libm or NumPy version can change a digit.
"""
import argparse
import hashlib
import json
import math
import os
import random
import re

EOL = "\r\n"
DIR60, DIR120 = "nturgb+d_skeletons", "nturgb+d_skeletons120"
FIRST_ID = 72057594037927936            # 2**56, where Kinect v2 tracking ids start

# Standing pose, metres from the spine base, Kinect v2 joint order.
_LEFT = {5: (-.17, .46, .00), 6: (-.24, .21, .02), 7: (-.27, -.02, -.03), 8: (-.28, -.10, -.05),
         13: (-.08, -.01, .00), 14: (-.11, -.40, .02), 15: (-.12, -.75, .05), 16: (-.13, -.82, -.05),
         22: (-.28, -.18, -.06), 23: (-.25, -.12, -.09)}
_MIRROR = {5: 9, 6: 10, 7: 11, 8: 12, 13: 17, 14: 18, 15: 19, 16: 20, 22: 24, 23: 25}
_MID = {1: (0., 0., 0.), 2: (0., .30, 0.), 3: (0., .56, 0.), 4: (0., .70, 0.), 21: (0., .49, 0.)}
POSE = dict(_MID)
for _j, (_x, _y, _z) in _LEFT.items():
    POSE[_j] = (_x, _y, _z)
    POSE[_MIRROR[_j]] = (-_x, _y, _z)
POSE = [POSE[_j] for _j in range(1, 26)]
# How far each joint follows the arm swing: nothing at the trunk, all of it at the hands.
SWING = [0.0] * 25
for _j, _w in {6: .4, 7: .8, 8: 1., 22: 1., 23: 1., 10: .4, 11: .8, 12: 1., 24: 1., 25: 1.,
               14: .1, 15: .2, 16: .25, 18: .1, 19: .2, 20: .25}.items():
    SWING[_j - 1] = _w
LEAF = {4, 16, 20, 22, 23, 24, 25}      # joints for which Kinect gives no orientation


def wave(t):
    """Period 1, range -1..1: a sine-like curve from two parabolas."""
    t -= math.floor(t)
    return 16 * t * (.5 - t) if t < .5 else -16 * (t - .5) * (1 - t)


def num(v):
    """7 significant digits, upper-case exponent, as .NET prints a float."""
    return ("%.7g" % v).replace("e", "E")


class Track:
    """One tracked body: an id and the frames in which the sensor reports it."""

    def __init__(self, rng, frames, *, x=None, z=None, walk=0., swing=.12, wide=(), zero=(), body=None):
        self.id = str(FIRST_ID + rng.randrange(1000, 99999)) if body is None else body
        self.frames = list(frames)
        self.x = rng.uniform(-.6, .6) if x is None else x
        self.y = rng.uniform(-.35, -.05)
        self.z = rng.uniform(2.4, 4.2) if z is None else z
        self.walk, self.swing = walk, swing     # metres walked sideways in all; arm swing
        self.period, self.phase = rng.uniform(25, 60), rng.random()
        self.size = rng.uniform(.98, 1.02)
        self.wide, self.zero = set(wide), set(zero)
        self.present = set(self.frames)
        self.seed = rng.randrange(1 << 60)
        self.cache = {}

    def joints(self, f):
        """25 (x, y, z) triples in metres for frame f."""
        if f not in self.cache:
            rng = random.Random(self.seed * 4096 + f)
            t = f / self.period + self.phase
            part = (f - self.frames[0]) / (len(self.frames) or 1)
            cx, cz = self.x + self.walk * (part - .5) + .02 * wave(t / 2), self.z + .03 * wave(t / 3)
            lift = self.swing * wave(t)
            out = []
            for (px, py, pz), w in zip(POSE, SWING):
                px, py, pz = px * self.size, py * self.size, pz * self.size
                py += w * abs(lift) * 1.5
                pz -= w * lift
                if f in self.wide:              # a sofa, or someone lying down
                    px, py = 2.2 * px, .35 * py
                noise = [.004 * (rng.random() - .5) for _ in range(3)]
                out.append((cx + px + noise[0], self.y + py + noise[1], cz + pz + noise[2]))
            if f in self.zero:
                out = [(0., 0., 0.)] * 25
            self.cache[f] = out, rng
        return self.cache[f]

    def lines(self, f):
        pts, rng = self.joints(f)
        rng = random.Random(self.seed * 4096 + f + 2048)
        head = "%s 0 1 %d 1 %d 0 %s %s 2" % (self.id, rng.randrange(4), rng.randrange(4),
                                            num(rng.uniform(-.3, .3)), num(rng.uniform(-.3, .3)))
        rows = [head, "25"]
        for j, (x, y, z) in enumerate(pts, 1):
            d = z if z > .1 else .1
            if j in LEAF:
                quat = "0 0 0 0"
            else:
                q = [rng.uniform(-1, 1) for _ in range(4)]
                n = math.sqrt(sum(v * v for v in q)) or 1.
                quat = " ".join(num(v / n) for v in q)
            r = rng.random()
            rows.append("%s %s %s %s %s %s %s %s %d" % (
                num(x), num(y), num(z), num(256 + 365 * x / d), num(207 - 365 * y / d),
                num(955 + 1060 * x / d), num(540 - 1060 * y / d), quat,
                2 if r < .9 else 1 if r < .99 else 0))
        return rows


class Twin(Track):
    """Same coordinates as another track under another id (an exact tie in every measure)."""

    def __init__(self, rng, other):
        super().__init__(rng, other.frames)
        self.other = other

    def joints(self, f):
        return self.other.joints(f)


def text(total, tracks, *, eol=EOL, final=True, swap=False):
    rows = [str(total)]
    for f in range(total):
        here = [t for t in tracks if f in t.present]
        if swap and f % 2:
            here.reverse()
        rows.append(str(len(here)))
        for t in here:
            rows.extend(t.lines(f))
    return eol.join(rows) + (eol if final else "")


# --- clean cases: the reference runs to the end on every one of these ---------------------
# Each takes (rng, n) and returns (tracks, keyword arguments of text()). The docstring says what
# the reference does with it; `kind` is which labels the case may carry.

CASES = {}


def case(kind):
    def keep(fn):
        CASES[fn.__name__] = (kind, fn)
        return fn
    return keep


def _span(a, b, skip=()):
    return [f for f in range(a, b) if f not in skip]


@case("single")
def one_body(rng, n):
    """One id in every frame."""
    return [Track(rng, _span(0, n))], {}


@case("single")
def empty_start(rng, n):
    """No body in the first frames: they are dropped."""
    return [Track(rng, _span(rng.randrange(2, 7), n))], {}


@case("single")
def empty_middle(rng, n):
    """No body in two runs of middle frames: dropped, the rest closes up."""
    a, b = n // 3, 2 * n // 3
    return [Track(rng, _span(0, n, set(range(a, a + 4)) | {b}))], {}


@case("single")
def empty_end(rng, n):
    """No body in the last frames."""
    return [Track(rng, _span(0, n - rng.randrange(2, 7)))], {}


@case("mutual")
def empty_everywhere(rng, n):
    """Two bodies, with bodiless frames at the start, in the middle and at the end."""
    skip = set(range(n // 2, n // 2 + 3))
    return [Track(rng, _span(3, n - 2, skip), x=-.5, walk=.8), Track(rng, _span(3, n - 2, skip), x=.5)], {}


@case("single")
def lone_short(rng, n):
    """A lone body of 9 frames: the length filter is for two ids or more, so it is kept."""
    return [Track(rng, _span(5, 14))], {}


@case("mutual")
def two_bodies(rng, n):
    """Two ids all along, the first of larger motion."""
    return [Track(rng, _span(0, n), x=-.5, walk=.8), Track(rng, _span(0, n), x=.5)], {}


@case("mutual")
def two_bodies_swap(rng, n):
    """Two ids all along, the second of larger motion: it becomes the first actor."""
    return [Track(rng, _span(0, n), x=-.5), Track(rng, _span(0, n), x=.5, walk=.8)], {}


@case("mutual")
def order_in_frame(rng, n):
    """Two ids listed in alternating order within the frames."""
    return [Track(rng, _span(0, n), x=-.5), Track(rng, _span(0, n), x=.5, walk=.8)], {"swap": True}


@case("mutual")
def motion_tie(rng, n):
    """Two ids with identical coordinates: equal motion, order of first appearance stays."""
    a = Track(rng, _span(0, n), walk=.8)
    return [a, Twin(rng, a)], {}


@case("single")
def two_in_single(rng, n):
    """Two ids kept in an action made for one person."""
    return [Track(rng, _span(0, n), x=-.4, walk=.8), Track(rng, _span(10, n), x=.7)], {}


@case("single")
def short_11(rng, n):
    """A second id of exactly 11 frames: filtered by length, one body left."""
    return [Track(rng, _span(0, n)), Track(rng, _span(20, 31))], {}


@case("single")
def short_12(rng, n):
    """A second id of exactly 12 frames: kept as second actor."""
    return [Track(rng, _span(0, n), walk=.8), Track(rng, _span(20, 32))], {}


@case("mutual")
def short_third(rng, n):
    """Two ids and a third of 6 frames, reported first in its frames."""
    return [Track(rng, _span(8, 14), x=0.), Track(rng, _span(0, n), x=-.6, walk=.8),
            Track(rng, _span(0, n), x=.6)], {}


@case("mutual")
def mutual_one_left(rng, n):
    """A mutual action of which only one body is left after denoising."""
    return [Track(rng, _span(0, n)), Track(rng, _span(4, 13), x=.8)], {}


@case("single")
def short_uncovers(rng, n):
    """Frames covered by the filtered short id only are removed (one body left)."""
    hole = set(range(15, 20))
    return [Track(rng, _span(0, n, hole | set(range(n - 4, n)))), Track(rng, _span(13, 20), x=.8),
            Track(rng, _span(n - 4, n), x=-.8)], {}


@case("single")
def wide_all(rng, n):
    """A second id too wide for its height in every frame: filtered by spread, one left."""
    return [Track(rng, _span(0, n)), Track(rng, _span(0, n), x=.9, wide=range(n))], {}


@case("mutual")
def wide_third(rng, n):
    """Three ids, the first of them too wide: two are left."""
    return [Track(rng, _span(0, n), x=0., wide=range(n)), Track(rng, _span(0, n), x=-.6, walk=.8),
            Track(rng, _span(0, n), x=.6)], {}


@case("mutual")
def wide_both(rng, n):
    """Both ids too wide: the first is filtered, the second is then alone and kept."""
    return [Track(rng, _span(0, n), x=-.6, wide=range(n)), Track(rng, _span(0, n), x=.6, wide=range(n))], {}


@case("mutual")
def wide_100_69(rng, n):
    """100 frames, 69 too wide (0.69 < 0.69754): the id is kept, its motion at most what it was."""
    return [Track(rng, _span(0, 100), x=-.5, walk=.8), Track(rng, _span(0, 100), x=.5, wide=range(69))], {}


@case("mutual")
def wide_100_70(rng, n):
    """100 frames, 70 too wide (0.70 >= 0.69754): the id is filtered."""
    return [Track(rng, _span(0, 100), x=-.5, walk=.8), Track(rng, _span(0, 100), x=.5, wide=range(70))], {}


@case("mutual")
def wide_reorders(rng, n):
    """The id of larger motion owes it to a few wide frames far off; without them it is second."""
    a = Track(rng, _span(0, n), x=-.5, walk=.8)
    b = Track(rng, _span(0, n), x=.4, wide=range(n // 2, n // 2 + n // 4))
    return [b, a], {"far": (b, set(range(n // 2, n // 2 + n // 4)), 2.5)}


@case("single")
def id_change(rng, n):
    """One person under two ids in turn: merged into the first actor."""
    c = n // 2
    return [Track(rng, _span(0, c), x=.1, z=3.), Track(rng, _span(c, n), x=.1, z=3., walk=.8)], {}


@case("single")
def id_change_three(rng, n):
    """One person under three ids in turn, the outer two of larger motion: once they are merged
    their hull spans the middle one, which is then taken for a second actor."""
    a, b = n // 3, 2 * n // 3
    return [Track(rng, _span(0, a), walk=.8), Track(rng, _span(a, b), walk=0), Track(rng, _span(b, n), walk=1)], {}


@case("single")
def id_change_chain(rng, n):
    """Three ids in turn, of falling motion: all merged into the first actor."""
    a, b = n // 3, 2 * n // 3
    return [Track(rng, _span(0, a), walk=1.2, z=3.), Track(rng, _span(a, b), walk=.8, z=3.),
            Track(rng, _span(b, n), walk=0, z=3.)], {}


@case("single")
def id_change_touch(rng, n):
    """Two ids sharing one frame: counted as no overlap; the lower motion one wins that frame."""
    c = n // 2
    return [Track(rng, _span(0, c + 1), x=.1, walk=.8), Track(rng, _span(c, n), x=.1)], {}


@case("single")
def id_change_overlap2(rng, n):
    """Two ids sharing two frames: counted as overlap, so the second is the second actor."""
    c = n // 2
    return [Track(rng, _span(0, c + 2), x=.1, walk=.8), Track(rng, _span(c, n), x=.1)], {}


@case("single")
def id_change_hole(rng, n):
    """Two ids in turn, between them frames of a filtered short id only: those frames go."""
    c = n // 2
    return [Track(rng, _span(0, c), walk=.8), Track(rng, _span(c - 2, c + 5), x=.8), Track(rng, _span(c + 5, n))], {}


@case("single")
def id_change_empty(rng, n):
    """Two ids in turn with bodiless frames between: those are dropped, the rest merged."""
    c = n // 2
    return [Track(rng, _span(0, c), walk=.8), Track(rng, _span(c + 5, n))], {}


@case("single")
def id_flip(rng, n):
    """One person under id A, then B, then A again: closing A's gap makes it overlap B, so B is
    taken for a second actor and the tail, now empty, is removed."""
    a, b = n // 3, 2 * n // 3
    return [Track(rng, _span(0, n, range(a, b)), walk=.8), Track(rng, _span(a, b))], {}


@case("mutual")
def second_late(rng, n):
    """The second actor comes later: zeros before."""
    return [Track(rng, _span(0, n), x=-.5, walk=.8), Track(rng, _span(n // 3, n), x=.5)], {}


@case("mutual")
def first_late(rng, n):
    """The actor of larger motion comes later: the origin is its first own frame."""
    return [Track(rng, _span(0, n), x=-.5), Track(rng, _span(n // 3, n), x=.5, walk=1.2)], {}


@case("mutual")
def first_leaves(rng, n):
    """The actor of larger motion leaves early."""
    return [Track(rng, _span(0, n), x=-.5), Track(rng, _span(0, 2 * n // 3), x=.5, walk=1.2)], {}


@case("mutual")
def gap(rng, n):
    """The second actor is lost and comes back: its later frames are shifted to close the gap."""
    hole = set(range(n // 3, n // 3 + 8))
    return [Track(rng, _span(0, n), x=-.5, walk=.8), Track(rng, _span(0, n, hole), x=.5)], {}


@case("mutual")
def gap_both(rng, n):
    """Both ids have gaps, at different times: after the shift the last frames hold neither,
    and they are removed."""
    return [Track(rng, _span(0, n, range(10, 16)), x=-.5, walk=.8),
            Track(rng, _span(0, n, range(22, 26)), x=.5)], {}


@case("single")
def gap_other_short(rng, n):
    """The one kept id has a gap covered by a filtered short id: shifted, and cut at the end."""
    return [Track(rng, _span(0, n, range(12, 20))), Track(rng, _span(10, 20), x=.9)], {}


@case("mutual")
def second_in_two_falling(rng, n):
    """The second actor under two ids, the earlier of larger motion: both kept."""
    c = n // 2
    return [Track(rng, _span(0, n), x=-.5, walk=1.6), Track(rng, _span(0, c), x=.5, walk=1.2),
            Track(rng, _span(c, n), x=.5, walk=0)], {}


@case("mutual")
def second_in_two_rising(rng, n):
    """The second actor under two ids, the later of larger motion: the earlier is lost, for the
    second actor's interval always starts at frame 0."""
    c = n // 2
    return [Track(rng, _span(0, n), x=-.5, walk=1.6), Track(rng, _span(0, c), x=.5, walk=0),
            Track(rng, _span(c, n), x=.5, walk=1.2)], {}


@case("mutual")
def third_dropped(rng, n):
    """Three ids all along: the one of least motion is dropped."""
    return [Track(rng, _span(0, n), x=0., walk=0), Track(rng, _span(0, n), x=-.8, walk=1.2),
            Track(rng, _span(0, n), x=.8, walk=.8)], {}


@case("mutual")
def third_uncovers(rng, n):
    """Two kept ids end early, a dropped third goes on: the last frames are removed."""
    e = n - 9
    return [Track(rng, _span(0, e), x=-.8, walk=1.2), Track(rng, _span(0, e), x=.8, walk=.8),
            Track(rng, _span(0, n), x=0., walk=0)], {}


@case("mutual")
def six_bodies(rng, n):
    """Six ids at once, the sensor's most."""
    return [Track(rng, _span(3 * i, n), x=-1.2 + .5 * i, walk=.3 * i) for i in range(6)], {}


@case("single")
def zero_frame_one(rng, n):
    """A lone body with all-zero coordinates in two frames: kept, and moved to minus the origin."""
    return [Track(rng, _span(0, n), zero=(0, n // 2))], {}


@case("mutual")
def zero_frame_two(rng, n):
    """Two bodies, one all zero in a few frames and both in one: zero stays zero, both goes."""
    return [Track(rng, _span(0, n), x=-.5, walk=.8, zero=(0, 5, 12)), Track(rng, _span(0, n), x=.5, zero=(8, 12))], {}


@case("single")
def line_feed(rng, n):
    """LF line ends."""
    return [Track(rng, _span(0, n))], {"eol": "\n"}


@case("mutual")
def no_final_newline(rng, n):
    """No line end after the last line."""
    return [Track(rng, _span(0, n), x=-.5, walk=.8), Track(rng, _span(0, n), x=.5)], {"final": False}


@case("single")
def one_frame(rng, n):
    """A single frame with a body among bodiless ones."""
    return [Track(rng, [7])], {}


COMMON = ["one_body"] * 9 + ["two_bodies", "two_bodies_swap", "short_11", "empty_middle"]
LENGTH = {"wide_100_69": 100, "wide_100_70": 100, "one_frame": 40, "lone_short": 40}


class Far(Track):
    """A track that stands elsewhere in some frames."""

    def __init__(self, track, frames, dx):
        self.__dict__.update(track.__dict__)
        self.away, self.dx = frames, dx

    def joints(self, f):
        pts, rng = Track.joints(self, f)
        return ([(x + self.dx, y, z) for x, y, z in pts] if f in self.away else pts), rng


def render(fn, rng, n):
    tracks, opts = fn(rng, n)
    if "far" in opts:
        who, frames, dx = opts.pop("far")
        tracks = [Far(t, frames, dx) if t is who else t for t in tracks]
    return text(n, tracks, **opts)


# --- names ---------------------------------------------------------------------------------

SINGLE60, MUTUAL60 = list(range(1, 50)), list(range(50, 61))
SINGLE120, MUTUAL120 = SINGLE60 + list(range(61, 106)), MUTUAL60 + list(range(106, 121))


def names(rng, kinds, wide):
    """One name per kind: setups and cameras in turn, subjects shuffled, no name twice."""
    setups, people = (32, 106) if wide else (17, 40)
    labels = {"single": SINGLE120 if wide else SINGLE60, "mutual": MUTUAL120 if wide else MUTUAL60}
    deck, seen, out = [], set(), []
    for i, kind in enumerate(kinds):
        s = i % setups + 1
        while True:
            if not deck:
                deck = list(range(1, people + 1))
                rng.shuffle(deck)
            p = deck.pop()
            if s <= 17:                        # subjects above 40 appear from setup 18 on
                p = (p - 1) % 40 + 1
            name = "S%03dC%03dP%03dR%03dA%03d" % (s, (i + i // setups) % 3 + 1, p, rng.randrange(2) + 1,
                                                   rng.choice(labels[kind]))
            if name not in seen:
                break
        seen.add(name)
        out.append(name)
    return out


def length(rng, mean):
    """Frame count from 32 up, skewed, about `mean` on average."""
    return 32 + int((mean - 32) * (rng.random() + rng.random() ** 3 * 2))


def clean(which, count, seed):
    wide = which == "ntu120"
    order = list(CASES)
    rng = random.Random("%s/%d/names" % (which, seed))
    todo = (order + [rng.choice(COMMON) for _ in range(max(0, count - len(order)))])[:count]
    rng.shuffle(todo)
    for name, c in zip(names(rng, [CASES[c][0] for c in todo], wide), todo):
        r = random.Random("%s/%d/%s" % (which, seed, name))
        n = LENGTH.get(c) or r.choice([r.randrange(40, 60), r.randrange(60, 110), r.randrange(110, 160)])
        yield name, c, n, render(CASES[c][1], r, n)


def bulk(which, count, seed):
    """About a fifth mutual, a few per cent untidy, the rest one body; the first has 300 frames."""
    wide = which == "bulk120"
    rng = random.Random("%s/%d/names" % (which, seed))
    untidy = ["short_11", "wide_all", "id_change", "two_in_single", "empty_middle", "gap", "second_late", "short_third"]
    todo = [rng.choice(["two_bodies", "two_bodies_swap"]) if rng.random() < .19 else
            rng.choice(untidy) if rng.random() < .08 else "one_body" for _ in range(count)]
    for i, (name, c) in enumerate(zip(names(rng, [CASES[c][0] for c in todo], wide), todo)):
        r = random.Random("%s/%d/%s" % (which, seed, name))
        n = max(40, length(r, 82)) if i else 300
        yield name, c, n, render(CASES[c][1], r, n)


# --- malformed -------------------------------------------------------------------------------

def bad(seed):
    """(name, case, frames, bytes) for files that are broken, or that break the reference."""
    rng = random.Random("bad/%d" % seed)
    n = 45

    def one():
        return [Track(rng, _span(0, n))]

    def two():
        return [Track(rng, _span(0, n), x=-.5, walk=.8), Track(rng, _span(0, n), x=.5)]

    def edit(rows, at, field, value):
        cells = rows[at].split(" ")
        cells[field] = value
        rows[at] = " ".join(cells)

    def joined(rows):
        return EOL.join(rows) + EOL

    def rows1():
        return text(n, one()).split(EOL)[:-1]

    def rows2():
        return text(n, two()).split(EOL)[:-1]

    per1 = 28                                   # lines a one-body frame takes: count, id, 25, 25 joints
    frame = lambda f: 1 + f * per1              # line of frame f's body count in a one-body file
    joint = lambda f, j: frame(f) + 2 + j       # line of joint j (1-25)
    out = []

    def add(c, data, name=None):
        i = len(out)
        name = name or "S%03dC%03dP%03dR%03dA%03d" % (i % 17 + 1, i % 3 + 1, i % 40 + 1, i // 17 % 2 + 1, i % 49 + 1)
        out.append((name, c, n, data if isinstance(data, bytes) else data.encode()))

    add("empty_file", "")
    add("blank_file", EOL)
    add("header_only", "45" + EOL)
    add("zero_frames", "0" + EOL)
    add("negative_frames", "-3" + EOL)
    add("all_frames_empty", joined(["45"] + ["0"] * 45))
    add("header_not_a_number", joined(["abc"] + rows1()[1:]))
    add("header_float", joined(["45.0"] + rows1()[1:]))
    add("header_too_large", joined(["50"] + rows1()[1:]))
    add("header_too_small", joined(["40"] + rows1()[1:]))
    add("truncated_between_frames", joined(rows1()[:frame(20)]))
    add("truncated_between_lines", joined(rows1()[:joint(20, 9)]))
    r = rows1()[:joint(20, 9)]
    add("truncated_in_line", EOL.join(r + ["0.1234567 -0.23456 3.01 277."]))
    r = rows1()
    r[-1] = " ".join(r[-1].split(" ")[:9])
    add("truncated_last_line_after_colour", EOL.join(r))
    r = rows1()
    edit(r, joint(10, 5), 0, "0.12x4")
    add("coordinate_not_a_number", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 0, "0,2181153")
    add("coordinate_decimal_comma", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 5, "abc")
    add("colour_not_a_number", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 3, "abc")
    edit(r, joint(10, 6), 8, "abc")
    edit(r, joint(10, 7), -1, "abc")
    add("unused_field_not_a_number", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 1, "-1.#IND")
    add("coordinate_msvc_nan", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 1, "NaN")
    add("coordinate_nan", joined(r))
    r = rows1()
    edit(r, joint(0, 2), 0, "nan")
    add("coordinate_nan_origin", joined(r))
    r = rows2()
    edit(r, 1 + 10 * 55 + 3 + 4, 1, "NaN")
    add("coordinate_nan_two_bodies", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 1, "Infinity")
    add("coordinate_inf", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 1, "1e39")
    add("coordinate_overflow", joined(r))
    r = rows1()
    edit(r, joint(10, 5), 5, "NaN")
    edit(r, joint(10, 5), 6, "-Infinity")
    add("colour_nan", joined(r))
    r = [v for i, v in enumerate(rows1()) if i == 0 or (i - 1) % per1 != per1 - 1]
    add("joints_24_declared", joined(["24" if v == "25" else v for v in r]))
    r = rows1()
    del r[joint(10, 25)]
    add("joints_24_undeclared", joined(r))
    r = []
    for i, v in enumerate(rows1()):
        r.append("26" if v == "25" else v)
        if i and (i - 1) % per1 == per1 - 1:
            r.append(v)
    add("joints_26_declared", joined(r))
    r = rows1()
    r.insert(joint(10, 25), r[joint(10, 25)])
    add("joints_26_undeclared", joined(r))
    r = rows1()
    r[joint(10, 5)] = " ".join(r[joint(10, 5)].split(" ")[:3])
    add("joint_line_3_fields", joined(r))
    r = rows1()
    r[joint(10, 5)] = " ".join(r[joint(10, 5)].split(" ")[:6])
    add("joint_line_6_fields", joined(r))
    r = rows1()
    r[joint(10, 5)] = " ".join(r[joint(10, 5)].split(" ")[:7])
    add("joint_line_7_fields", joined(r))
    r = rows1()
    r[joint(10, 5)] += " 7 8 9"
    add("joint_line_15_fields", joined(r))
    r = rows1()
    r[frame(10)] = "-1"
    add("negative_bodies", joined(r))
    r = rows1()
    r[frame(10)] = "2"
    add("body_count_too_large", joined(r))
    r = rows2()
    r[1 + 10 * 55] = "1"
    add("body_count_too_small", joined(r))
    r = rows1()
    r.insert(frame(10), "")
    add("blank_line", joined(r))
    r = rows1()
    r[frame(10) + 1] = ""
    add("body_line_empty", joined(r))
    r = rows1()
    r[frame(10) + 1] = r[frame(10) + 1].split(" ")[0]
    add("body_line_id_only", joined(r))
    add("trailing_blank_lines", joined(rows1()) + EOL * 3)
    add("trailing_garbage", joined(rows1()) + "the end" + EOL)
    add("indented", joined(["  " + v + " \t" for v in rows1()]))
    add("byte_order_mark", b"\xef\xbb\xbf" + joined(rows1()).encode())
    add("not_utf8", joined(rows1()[:30]).encode() + b"\xff\xfe\x80\x81" + joined(rows1()[30:]).encode())
    add("nul_bytes", joined(rows1()[:30]).encode() + b"\0" * 64)
    a, b = two()
    b.id = a.id
    add("same_id_twice_in_frames", text(n, [a, b]))
    a = Track(rng, _span(0, n, range(20, 30)), walk=.8)
    b = Track(rng, range(3, 8), x=.9, body=a.id)
    add("same_id_twice_fits", text(n, [a, b, Track(rng, _span(0, n), x=.5)]))
    add("two_ids_both_short", text(n, [Track(rng, _span(5, 14)), Track(rng, _span(14, 24))]))
    add("three_ids_all_short", text(n, [Track(rng, _span(5, 14)), Track(rng, _span(14, 24)), Track(rng, _span(30, 41))]))
    add("one_body_all_zero", text(n, [Track(rng, _span(0, n), zero=range(n))]))
    add("two_bodies_all_zero", text(n, [Track(rng, _span(0, n), zero=range(n)), Track(rng, _span(0, n), zero=range(n))]))
    add("two_bodies_first_kept_zero", text(n, [Track(rng, _span(0, n), zero=range(n)), Track(rng, _span(6, 12))]))
    # names: the content is sound
    add("name_action_61", text(n, one()), "S001C001P001R001A061")
    add("name_action_0", text(n, one()), "S001C001P001R001A000")
    add("name_subject_41", text(n, one()), "S001C001P041R001A001")
    add("name_camera_4", text(n, one()), "S001C004P001R001A001")
    add("name_setup_33", text(n, one()), "S033C001P001R001A001")
    add("name_no_action", text(n, one()), "S001C001P001R001")
    add("name_lower_case", text(n, one()), "s001c001p001r001a001")
    add("name_suffix_two_bodies", text(n, two()), "S001C001P001R001A050 (1)")
    add("name_short_fields", text(n, one()), "S1C1P1R1A1")
    add("name_rgb", text(n, one()), "S001C001P001R001A001_rgb")
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--set", required=True, choices=["ntu60", "ntu120", "bulk60", "bulk120", "bad"])
    ap.add_argument("--count", type=int, default=60)
    ap.add_argument("--seed", type=int, default=7)
    a = ap.parse_args()
    if a.set == "bad":
        items = bad(a.seed)
    elif a.set.startswith("bulk"):
        items = bulk(a.set, a.count, a.seed)
    else:
        items = clean(a.set, a.count, a.seed)
    if os.path.isdir(a.out) and os.listdir(a.out):
        ap.error("%s is not empty" % a.out)         # never write into, or clear, a real data folder
    for d in (DIR60, DIR120):
        os.makedirs(os.path.join(a.out, d))
    listed = []
    for name, c, n, data in items:
        data = data if isinstance(data, bytes) else data.encode()
        m = re.match(r"[Ss](\d+)", name)
        where = DIR120 if m and int(m.group(1)) >= 18 else DIR60
        with open(os.path.join(a.out, where, name + ".skeleton"), "wb") as fh:
            fh.write(data)
        listed.append({"name": name, "case": c, "frames": n, "dir": where, "bytes": len(data),
                       "sha256": hashlib.sha256(data).hexdigest()})
    listed.sort(key=lambda d: d["name"])
    digest = hashlib.sha256("".join(d["name"] + d["sha256"] for d in listed).encode()).hexdigest()
    with open(os.path.join(a.out, "manifest.json"), "w") as fh:
        json.dump({"set": a.set, "count": len(listed), "seed": a.seed, "sha256": digest, "files": listed}, fh, indent=0)
    print("%s: %d files, %d bytes, mean %.1f frames, sha256 %s" % (
        a.set, len(listed), sum(d["bytes"] for d in listed),
        sum(d["frames"] for d in listed) / max(1, len(listed)), digest))


if __name__ == "__main__":
    main()
