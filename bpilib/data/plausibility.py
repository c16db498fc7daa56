"""Plausibility of clips: are they upright bodies in metres, with left and right where they belong?

A network trains on anything, also on millimetres, pixels, inverted axes or joints in another order, and its results
are then wrong. So every clip is measured when it is imported. The data set is judged as a whole, since a single clip
may show somebody who lies, falls, crawls or stands on the hands.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bpilib.data.bodies import BODY, NO_DEPTH, NOBODY_THERE, STEADY, Figures, estimate_size, find_odd_bones, measure
from bpilib.data.store import SkeletonStore
from bpilib.skeleton import Skeleton

TORSOS = (0.12, 1.2)  # metres from hips to shoulders: from an infant to a poor fit
MAX_TORSO = 25  # metres, above which even a single clip is refused
FARTHEST = 1000  # metres from the origin: a single joint beyond would outweigh all others in training
NOBODY = 0.5  # share of the tests below which even one clip among many is reported
INVERTED = -0.5  # cosine of hips → head with y, below which a clip is upside down
KEPT = 2000  # clips of a data set whose figures are kept
TOLD = 10  # clips, from which on a minority in another convention can be told from a few odd clips
MINORITY = 0.1  # share of the clips above which they are such a minority, if they are
FEW = 3  # clips at least
LEANS = 0.7  # cosine of hips → head with an axis, above which a clip's head points along it
AGREE = 0.75  # share of the clips not upright that point one way if axes are turned; people lie and fall in many
MIRRORED = -0.5  # `turning` below which feet clearly point back: in 0.1 % of NW-UCLA's clips, 3 % of the synthetic ones
DISTINCT = 0.6  # share of the clips whose feet point back that clearly do so if they are mirror images, not noise


class Finding(NamedTuple):
    """A conclusion from the figures: "refuse" for what can't be right, else "warn"; and in words what to do."""

    severity: str
    what: str


class Inspection:
    """Measures the clips of a data set while they are imported, and judges them as a whole at the end.

    Every clip is tested against bounds that no body exceeds; figures are kept of `KEPT` clips, drawn uniformly from all
    that were seen, the same ones each time.

    Args:
        skeleton: NTU or UCLA.
        flat: the tracker has no depth.
        suspect: takes a few clips as they came in, and returns words to add to a message if they look like another
            tracker's, e.g. ": they look like ..., set tracker to ..."; None: other trackers are not considered.
    """

    def __init__(self, skeleton: Skeleton, flat: bool = False, suspect: Callable[[list], str] | None = None):
        self.skeleton, self.flat, self.suspect = skeleton, flat, suspect
        self.figures: list[Figures] = []
        self.raw: list[np.ndarray] = []
        self._seen, self._random = 0, np.random.default_rng(0)

    def see(self, name: str, poses: np.ndarray, raw: np.ndarray | None = None) -> None:
        """Measure a clip (L, M, V, 3); `raw` is the clip as it came in.

        Raises:
            ValueError: nobody in any frame; a torso of more than `MAX_TORSO` metres, or of nearly no length; a joint
                beyond `FARTHEST`.
        """
        if not poses.any():
            raise ValueError(NOBODY_THERE)
        if raw is not None and len(self.raw) < 3:
            self.raw.append(raw[:: max(1, len(raw) // 8)])
        if not self.flat:
            size = estimate_size(poses, self.skeleton)
            if size and not TORSOS[0] / 10 <= size <= MAX_TORSO:
                raise ValueError(_describe_units(size, self._told()))
        if (far := float(np.abs(poses).max())) > FARTHEST:
            raise ValueError(f"a coordinate of {far:.3g} metres, expected less than {FARTHEST}: cut the frame out")
        self._seen += 1
        place = int(self._random.integers(self._seen)) if self._seen > KEPT else len(self.figures)
        if place < KEPT:  # so each of the clips seen is kept with the same probability (Vitter's algorithm R)
            self.figures[place : place + 1] = [measure(poses, self.skeleton, name)]

    def _told(self) -> str:
        return self.suspect(self.raw) if self.suspect and self.raw else ""

    def findings(self) -> list[Finding]:
        """Findings on the clips seen so far."""
        found = check(self.figures, self.skeleton, self.flat, self._told())
        if self.flat and self.raw and all(map(_is_in_percent, self.raw)):
            what = "x and y from 0 to 100 throughout: per cent of the image, which squeezes a body? Bring pixels"
            found.append(Finding("warn", what))
        if self._seen > len(self.figures):
            drawn = f" [figures of {len(self.figures):,} clips drawn from {self._seen:,}]"
            found = [Finding(finding.severity, finding.what + drawn) for finding in found]
        return found

    def summary(self) -> dict[str, object]:
        """Medians and findings, for a manifest."""
        if not self.figures:
            return {}
        names = ("torso", "upright", "origin")
        medians = {name: round(float(np.median([getattr(f, name) for f in self.figures])), 3) for name in names}
        return {**medians, "findings": [finding.what for finding in self.findings()]}


def _is_in_percent(points: np.ndarray) -> bool:
    """Whether x and y of points (..., C) go from 0 to 100."""
    xy = points[..., :2]
    return bool(((xy >= 0) & (xy <= 100)).mean() > 0.99 and np.nanmax(xy, initial=0) > 1)


def _describe_units(torso: float, told: str = "") -> str:
    if told:
        return f"expected metres, a torso of about 0.5, got one of {torso:.3g}{told}"
    guess = "divide metres out of whatever unit this is"
    for unit, number in (("millimetres", 1000), ("centimetres", 100), ("feet", 1 / 0.3048)):
        if 0.25 <= torso / number <= 0.75:
            guess = f"{unit}? divide by {number:.4g}"
            break
    else:
        if torso > MAX_TORSO:
            guess = "pixels? then set tracker to whose they are; millimetres? divide by 1000"
        elif torso < TORSOS[0]:
            guess = "shares of an image, or another unit than metres?"
    return f"expected metres, a torso of about 0.5, got one of {torso:.3g}: {guess}"


def check(figures: Sequence[Figures], skeleton: Skeleton, flat: bool = False, told: str = "") -> list[Finding]:
    """Judge a data set, or a single clip, by its figures.

    Args:
        figures: of its clips; up to two count as single clips, in which a body may have any posture.
        skeleton: NTU or UCLA.
        flat: the tracker has no depth, so its absence is not reported.
        told: words on the tracker whose joints they look like, added to messages about joints.

    Returns:
        Findings, those to refuse first; empty if all is plausible.
    """
    if not figures:
        return []
    still = [f.name for f in figures if not f.size]
    if 2 * len(still) > len(figures):
        return [Finding("refuse", f"bodies without size, whose joints coincide: {_list_some(still, len(figures))}")]
    every, figures = figures, [f for f in figures if f.size]
    several = len(figures) > 2
    size = float(np.median([f.size for f in figures]))
    no_depth = np.median([f.depth for f in figures]) < NO_DEPTH
    bones = np.median([f.bones for f in figures], 0)
    passed, failed = find_odd_bones(bones, skeleton, flat)
    long = [f.steady for f in figures if np.isfinite(f.steady)]
    steady = float(np.median(long)) if long else np.nan
    out: list[Finding] = []
    if still:
        out.append(Finding("warn", f"bodies without size, whose joints coincide: {_list_some(still, len(every))}"))
    if _holds_for_most(figures, lambda f: f.scaled) and not flat:
        out.append(Finding("refuse", "every axis is scaled to the same span, from 0 or -1 to 1, in which a body is "
                           "squeezed: bring the clips as they were, in metres"))  # fmt: skip
    elif _holds_for_most(figures, lambda f: f.share) and not flat:
        out.append(Finding("refuse", "expected metres, got x and y from 0 to 1, shares of an image: an image's points "
                           f"need a tracker of images, and pixels{told}"))  # fmt: skip
    bad = f"bones in torsos: {', '.join(failed[:4])}{' ...' if len(failed) > 4 else ''}"
    if not told and (steady > STEADY or (passed < BODY and np.isnan(steady))):  # noise
        grow = f", bones change by {steady:.0%} from frame to frame" if np.isfinite(steady) else ""
        return [*out, Finding("warn", f"this is no body{grow}{'; ' + bad if failed else ''}")]
    if passed < BODY:
        out.append(Finding("refuse", f"joints in another order, or of another tracker: {bad}{told}"))
    if not TORSOS[0] <= size <= TORSOS[1] and not flat:
        out.append(Finding("refuse", _describe_units(size, told)))
    if no_depth and not flat:
        severity = "refuse" if _holds_for_most(figures, lambda f: f.level != 0) else "warn"
        out.append(Finding(severity, f"z is the same for all joints: a score, or an image without depth?{told}"))
    inverted = [f.name for f in figures if f.upright < INVERTED]
    if inverted:
        what = f"upside down: {_list_some(inverted, len(figures))}, the head below the hips (cosine with y " + (
            f"{np.median([f.upright for f in figures if f.upright < INVERTED]):.2f})"
        )
        most = 2 * len(inverted) > len(figures)
        what += f"; y down? turn x and y round (multiply by -1){told}" if most else ""
        out.append(Finding("refuse" if several and most else "warn", what))
    lean = np.mean([f.lean for f in figures], 0)
    if abs(lean[1]) < 0.35 and np.abs(lean[[0, 2]]).max() > 0.85:
        axis = "xz"[int(np.abs(lean[2]) > np.abs(lean[0]))]
        sign = "-+"[int(lean["xyz".index(axis)] > 0)]
        what = f"all heads point along {sign}{axis} (cosine with y {lean[1]:.2f}): if these are not people who lie"
        out.append(Finding("warn", f"{what}, turn {_describe_turn(sign + axis)}"))
    else:
        out += _find_mixed_axes(figures)
    turning = [f.turning for f in figures]
    if not no_depth and several and np.median(turning) < MIRRORED and np.mean(np.less(turning, 0)) > 0.8:
        back = f"feet point back in {np.mean(np.less(turning, 0)):.0%} of the clips"
        out.append(Finding("warn", f"left and right look swapped ({back}): a mirror image, or one axis turned round?"))
    elif not no_depth:
        out += _find_some_mirrored(figures)
    repeated = [joint for f in figures for joint in f.repeated]
    often = sorted({j for j in repeated if 2 * repeated.count(j) > len(figures)}) if repeated else []
    if often:
        severity = "refuse" if 3 * len(often) > skeleton.num_joints else "warn"
        out.append(Finding(severity, f"{len(often)} joints repeat another's numbers, or are 0: {', '.join(often[:6])}"))
    torn = [f for f in figures if f.torn]
    if len(torn) >= max(1, 0.01 * len(figures)):  # sensors lose a joint now and then
        names = sorted({joint for f in torn for joint in f.torn})
        clips = _list_some([f.name for f in torn], len(figures))
        away = f"joints that jump away from the body: {', '.join(names[:4])}, in {clips}"
        out.append(Finding("warn", f"{away}: 0, 0, 0 where they were not tracked? Leave such frames out, or fill in"))
    jump = [f.name for f in figures if f.jumps]
    if len(jump) >= max(1, 0.01 * len(figures)):  # 0.3 % of NW-UCLA's do
        what = f"persons change places from one frame to the next, or a body jumps: {_list_some(jump, len(figures))}; "
        what += "follow people from frame to frame before importing, or leave such clips out"
        out.append(Finding("warn", what))
    if several and all(f.severity == "warn" for f in out):
        odd = [f.name for f in figures if not TORSOS[0] <= f.size <= TORSOS[1]]
        if odd and not flat:
            out.append(Finding("warn", f"other units than metres? {_list_some(odd, len(figures))}"))
        shares = {f.name: find_odd_bones(f.bones, skeleton, flat)[0] for f in figures}
        odd = [name for name, share in shares.items() if share < BODY]
        if len(odd) < max(2, 0.05 * len(figures)):  # sensors take furniture for people now and then
            odd = [name for name in odd if shares[name] < NOBODY]
        if odd:
            out.append(Finding("warn", f"no bodies, or joints in another order: {_list_some(odd, len(figures))}"))
    return sorted(out, key=lambda finding: finding.severity != "refuse")


def _describe_turn(way: str) -> str:
    """How to turn axes if heads point along `way`, e.g. "+z", so that y is up."""
    return "(x, y, z) to (x, z, -y)" if way == "+z" else "the axes so that y is up"


def _find_mixed_axes(figures: Sequence[Figures]) -> list[Finding]:
    """Warn if the heads of many clips point the same way along x or z, and others are upright."""
    leans = np.array([f.lean for f in figures])  # (N, 3)
    tilted = leans[np.abs(leans[:, 1]) < 0.5]
    if (leans[:, 1] > LEANS).sum() < FEW:
        return []
    for axis in (0, 2):
        for sign in (-1, 1):
            along = sign * leans[:, axis] > LEANS
            agree = np.sum(sign * tilted[:, axis] > LEANS) >= AGREE * len(tilted)
            if agree and _is_minority(int(along.sum()), len(figures)):
                way = f"{'-+'[sign > 0]}{'xyz'[axis]}"
                names = _list_some([f.name for f, there in zip(figures, along) if there], len(figures))
                what = f"two conventions are mixed: heads point along {way} in {names}, not in the others: "
                what += f"if these are not people who lie, turn {_describe_turn(way)} in these clips alone"
                return [Finding("warn", what)]
    return []


def _find_some_mirrored(figures: Sequence[Figures]) -> list[Finding]:
    """Warn if feet point back in many clips, not in all, and clearly so."""
    mirrored = [f.name for f in figures if f.turning < MIRRORED]
    if len(mirrored) < DISTINCT * sum(f.turning < 0 for f in figures) or not _is_minority(len(mirrored), len(figures)):
        return []
    what = f"two conventions are mixed: left and right look swapped in {_list_some(mirrored, len(figures))}, where "
    what += "feet point back, not in the others: mirror images, or one axis turned round? Turn it in these clips alone"
    return [Finding("warn", what)]


def _is_minority(count: int, total: int) -> bool:
    return total >= TOLD and count >= FEW and count > MINORITY * total


def _holds_for_most(figures: Sequence[Figures], true) -> bool:
    return 2 * sum(map(true, figures)) > len(figures)


def _list_some(names: list[str], total: int) -> str:
    more = f", ... and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} of {total} clips ({', '.join(names[:3])}{more})"


def tabulate(figures: Iterable[Figures]) -> pd.DataFrame:
    """Tabulate median, 5 % and 95 % quantile of torso, uprightness and distance from the origin, one row each."""
    figures = list(figures)
    rows = {
        "torso, metres": [f.torso for f in figures],
        "uprightness (cosine of hips to head with y)": [f.upright for f in figures],
        "first spine from the origin, metres": [f.origin for f in figures],
    }
    values = {name: np.nanquantile(column, (0.5, 0.05, 0.95)) for name, column in rows.items()}
    return pd.DataFrame.from_dict(values, "index", columns=["median", "5 %", "95 %"]).round(2)


def measure_store(store: SkeletonStore, most: int = 200) -> list[Figures]:
    """Measure up to `most` clips of a store, evenly spread."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(most, len(store))).astype(int))
    clips = ((i, store.sample(i)) for i in chosen)
    return [measure(poses, store.skeleton, str(store.names[i])) for i, poses in clips if poses.any()]


def find_empty_classes(store: SkeletonStore, benchmark: str) -> dict[str, list[str]]:
    """Find the classes without clips in "train" (they can't be learned) and in "test" (they have no accuracy).

    Returns:
        {"train": class names, "test": class names}, in label order.
    """
    count = len(store.classes)
    out = {}
    for part in ("train", "test"):
        clips = np.bincount(store.labels[store.split(benchmark, part)], minlength=count)
        out[part] = [store.classes[k] for k in np.flatnonzero(clips == 0)]
    return out


def describe_empty_classes(store: SkeletonStore, benchmark: str) -> list[str]:
    """Say `find_empty_classes` in sentences, one a part; none where every class has clips in both.

    A store of one class is said so, too: there is nothing to tell apart.
    """
    effect = {"train": "can't be learned", "test": "will have no accuracy"}
    found = find_empty_classes(store, benchmark).items()
    alone = [f"one class alone, {store.classes[0]}: nothing to tell apart"] if len(store.classes) == 1 else []
    return alone + [f"no {part} clip of {', '.join(names)}, which {effect[part]}" for part, names in found if names]
