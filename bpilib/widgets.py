"""Interactive browsers for JupyterLab: attention of a clip, and the clips themselves. Arrays in, widgets out.

The pictures are PNG bytes in an Image widget and players in an HTML widget: a saved notebook keeps what was last shown.
"""

from collections.abc import Mapping, Sequence
from html import escape

import ipywidgets as w
import numpy as np

from .drawing import animate, draw_attention
from .heatmaps import draw_map
from .skeleton import Skeleton
from .style import PART_COLORS, Picture, check_attention, new_picture, short, styled

_BOXES = ((0.0, 0.02, 0.4, 0.88), (0.52, 0.27, 0.4, 0.56), (0.93, 0.27, 0.012, 0.56))  # left, bottom, width, height
_LABEL = {"description_width": "56px"}


@styled
def attention_card(
    clip, weights, query, key, groups, skeleton: Skeleton, part: str, head: int | None = None, vmax: float = 0.0
) -> Picture:
    """One part of one clip: its links on the skeleton beside its joint-to-joint map.

    Args:
        clip: (L, M, V, 3); its middle frame is drawn.
        weights: (heads, Vq, Vk).
        query: (Vq,) joints that look.
        key: (Vk,) joints looked at.
        groups: (part, start, stop) of the keys, from `check_attention`.
        skeleton: the joint set.
        part: the part that looks.
        head: one head from 0; None: the mean over heads.
        vmax: the weight of the map's darkest colour (0: the largest here).

    Returns:
        A figure with two panels.
    """
    shown = weights[slice(None) if head is None else slice(head, head + 1)]
    figure = new_picture(11, 4.9)
    figure.set_layout_engine("none")  # fixed margins: arranging the axes would take most of the time
    left, right, scale = (figure.add_axes(box) for box in _BOXES)
    draw_attention(left, shown, query, key, np.asarray(clip)[len(clip) // 2], skeleton, part)
    mean = shown.mean(0)
    vmax = vmax or mean.max()
    names = [short(skeleton.joints[j]) for j in query]
    image = draw_map(right, mean, names, key, groups, skeleton, vmax, PART_COLORS[part])
    right.set_title("mean over heads" if head is None else f"head {head + 1} of {len(weights)}", pad=27)
    bar = figure.colorbar(image, cax=scale, format=lambda value, _: f"{value:.0%}")
    bar.set_label("share of a joint's attention")
    return figure


class _Browser(w.VBox):
    """A VBox with `.controls` (name → widget), the shown clip's index `.current`, `.message` and `.view`."""

    def __init__(self, clips, labels, classes, names, filters: Sequence[str], view, extra: Mapping[str, w.Widget]):
        self._clips, self._labels, self._classes = clips, np.asarray(labels, dtype=int), list(classes)
        self._names = [str(n) for n in names] if names is not None else [f"clip {i}" for i in range(len(clips))]
        if not len(clips) == len(self._labels) == len(self._names):
            raise ValueError(
                f"expected one label and one name per clip, got {len(clips)} clips, {len(self._labels)} labels, "
                f"{len(self._names)} names: pass the same selection of clips everywhere"
            )
        present = [k for k in range(len(self._classes)) if (self._labels == k).any()]
        options = [("all classes", -1)] + [(self._classes[k], k) for k in present]
        wide = w.Layout(width="300px")
        self.controls: dict[str, w.Widget] = {
            "class": w.Dropdown(options=options, description="class", style=_LABEL, layout=wide),
            "clip": w.Dropdown(options=[], description="clip", style=_LABEL, layout=wide),
        }
        if filters:
            self.controls["shown"] = w.ToggleButtons(options=filters, style={"button_width": "64px"})
        self.controls |= extra
        self.message, self.view, self._listing = w.HTML(), view, False
        rows = [w.HBox(list(self.controls.values())[:3], layout=w.Layout(flex_flow="row wrap"))]
        if len(self.controls) > 3:
            rows.append(w.HBox(list(self.controls.values())[3:], layout=w.Layout(flex_flow="row wrap")))
        super().__init__([*rows, self.message, view])
        for name, control in self.controls.items():
            control.observe(self._changed if name in ("class", "shown") else self._draw, names="value")
        self._changed()

    @property
    def current(self) -> int | None:
        """The index of the clip shown; None where no clip matches."""
        return self.controls["clip"].value

    def _matching(self) -> np.ndarray:
        chosen = self.controls["class"].value
        return np.nonzero((self._labels == chosen) | (chosen == -1))[0]

    def _changed(self, _=None):
        self._listing = True  # the list is replaced in two steps: draw once, at its end
        clip, before = self.controls["clip"], self.current
        indices = self._matching()
        clip.options = [(self._names[i], int(i)) for i in indices]
        clip.value = before if before in indices else (int(indices[0]) if len(indices) else None)
        clip.disabled = not len(indices)
        self._listing = False
        self._draw()

    def _draw(self, _=None):
        if self._listing:
            return
        self.view.layout.display = "none" if self.current is None else ""
        if self.current is None:
            self.message.value = "<b>No clip matches.</b> Choose another class, or show all clips."
        else:
            self._show(self.current)


class _AttentionBrowser(_Browser):
    def __init__(self, clips, maps, joints, labels, predictions, classes, skeleton, names):
        self._maps = check_attention(maps, joints, axes=4)
        self._predictions, self._skeleton = np.asarray(predictions, dtype=int), skeleton
        for part, (weights, *_) in self._maps.items():
            if not len(weights) == len(clips) == len(self._predictions):
                raise ValueError(
                    f"expected maps and predictions for {len(clips)} clips, got {len(weights)} maps of {part} and "
                    f"{len(self._predictions)} predictions: pass the same selection of clips everywhere"
                )
        heads = min(self._maps[part][0].shape[1] for part in self._maps)
        options = [("mean over heads", -1)] + [(f"head {h + 1}", h) for h in range(heads)]
        extra = {
            "part": w.ToggleButtons(options=list(self._maps), style={"button_width": "64px"}),
            "head": w.Dropdown(options=options, description="head", style=_LABEL, layout=w.Layout(width="220px")),
        }
        view = w.Image(format="png", layout=w.Layout(max_width="100%", width="1100px"))
        super().__init__(clips, labels, classes, names, ("all", "right", "wrong"), view, extra)

    def _matching(self):
        indices = super()._matching()
        right, shown = self._predictions[indices] == self._labels[indices], self.controls["shown"].value
        return indices if shown == "all" else indices[right if shown == "right" else ~right]

    def _show(self, i: int):
        part, head = self.controls["part"].value, self.controls["head"].value
        weights, *axes = self._maps[part]
        card = attention_card(self._clips[i], weights[i], *axes, self._skeleton, part, None if head < 0 else head)
        self.view.value = card.png()
        truth, said = (escape(self._classes[k]) for k in (self._labels[i], self._predictions[i]))
        verdict = "✓ recognised" if truth == said else f"✗ taken for <b>{said}</b>"
        self.message.value = (
            f"{escape(self._names[i])}: <b>{truth}</b>, {verdict} ({len(self._matching())} clips to choose from)"
        )


def attention_browser(clips, maps, joints, labels, predictions, classes, skeleton: Skeleton, names=None) -> w.VBox:
    """Browse what each part looks at, clip by clip: class, right or wrong, clip, part, head.

    Args:
        clips: N clips (L, M, V, 3), metres; anything with a length that can be indexed.
        maps: part → (N, heads, Vq, Vk).
        joints: part → (query joints, key joints), the model's `attention_joints`.
        labels: (N,) true classes.
        predictions: (N,) predicted classes.
        classes: K names.
        skeleton: the joint set.
        names: N clip names; None numbers them.

    Returns:
        A VBox; `.controls` has class, clip, shown ("all", "right", "wrong"), part, head (-1: mean); `.view.value` is
        the PNG, `.message.value` what it says, `.current` the clip's index or None.

    Raises:
        ValueError: numbers of clips, maps, labels, predictions or names that differ, or maps that do not fit.
    """
    return _AttentionBrowser(clips, maps, joints, labels, predictions, classes, skeleton, names)


class _ClipBrowser(_Browser):
    def __init__(self, clips, labels, classes, skeleton, names):
        self._skeleton = skeleton
        super().__init__(clips, labels, classes, names, (), w.HTML(), {})

    def _show(self, i: int):
        clip = np.asarray(self._clips[i])
        title = self._classes[self._labels[i]]
        self.view.value = animate(clip, self._skeleton, title).data
        said = f"{escape(self._names[i])}: <b>{escape(title)}</b>, {len(clip)} frames"
        self.message.value = f"{said} ({len(self._matching())} clips to choose from)"


def clip_browser(clips, labels, classes, skeleton: Skeleton, names=None) -> w.VBox:
    """Browse the clips of a data set as animations: class, clip.

    Args:
        clips: N clips (L, M, V, 3), metres; anything with a length that can be indexed.
        labels: (N,) classes.
        classes: K names.
        skeleton: the joint set.
        names: N clip names; None numbers them.

    Returns:
        A VBox; `.controls` has class and clip; `.view.value` is the player's HTML, `.current` the clip's index.

    Raises:
        ValueError: numbers of clips, labels or names that differ.
    """
    return _ClipBrowser(clips, labels, classes, skeleton, names)
