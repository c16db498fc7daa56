"""Interactive browsers for JupyterLab: attention of a clip, and the clips themselves. Arrays in, widgets out.

The pictures are PNG bytes in an Image widget and players in an HTML widget: a saved notebook keeps what was last shown.
"""

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np

from bpilib.plots.activation import class_activation
from bpilib.plots.attention_heatmaps import check_attention
from bpilib.plots.attention_skeleton import attention_card
from bpilib.plots.clips import animate, animate_grid
from bpilib.plots.occlusion import occlusion_card
from bpilib.plots.style import THEME, Picture
from bpilib.plots.text import matches
from bpilib.skeleton import Skeleton

# What each picture shows: its key → (the button's label, its tooltip).
_PICTURES = {
    "attention": ("attention", "what each part looks at"),
    "true": ("true class", "what adds to the logit of the true class, and where"),
    "predicted": ("prediction", "what adds to the logit of the predicted class, and where"),
    "mistake": ("mistake", "what adds more to the predicted class than to the true one"),
    "occluded": ("occlusion", "how far the predicted class's logit falls without a joint, a part, a moment"),
}
_LABEL = {"description_width": "56px"}


@contextlib.contextmanager
def _collected_young() -> Iterator[None]:
    """Figures made and dropped inside are collected at its end, in milliseconds.

    A figure is full of cycles. Left to age, a dozen of them make Python go through all the objects of the kernel, which
    takes longer than drawing and falls on whatever control is moved then.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if enabled:
            gc.enable()


class _Browser(w.VBox):
    """A VBox with `.controls` (name → widget), the shown clip's index `.current`, `.message` and `.view`."""

    def __init__(self, clips, labels, classes, names, filters: Sequence[str], view, extra=None, first=None):
        extra, first = extra or {}, first or {}  # name → widget: below the others, and before them (not observed)
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
            **first,
            "class": w.Dropdown(options=options, description="class", style=_LABEL, layout=wide),
            "clip": w.Dropdown(options=[], description="clip", style=_LABEL, layout=wide),
        }
        if filters:
            self.controls["shown"] = w.ToggleButtons(options=filters, style={"button_width": "64px"})
        self.message, self.view, self._listing = w.HTML(), view, False
        wrap = w.Layout(flex_flow="row wrap")
        rows = [w.HBox(list(group.values()), layout=wrap) for group in (self.controls, extra) if group]
        self.controls |= extra
        super().__init__([*rows, self.message, view])
        for name in set(self.controls) - set(first):
            self.controls[name].observe(self._changed if name in ("class", "shown") else self._draw, names="value")
        self._changed()
        gc.collect()  # what has aged before would be collected at some control

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
            with _collected_young():
                self._show(self.current)


class _AttentionBrowser(_Browser):
    def __init__(self, views, clips, frames, classes, skeleton, window, names, occlude):
        self._occlude, self._dropped = occlude, {}
        self._views, self._known, self._looking, self._worker = dict(views), {}, set(), ThreadPoolExecutor(1)
        if not self._views:
            raise ValueError("no run to browse: pass run name → its views, or a function that returns them")
        self._skeleton, self._window, self._frames, self._count = skeleton, window, frames, len(clips)
        if len(frames) != len(clips):
            raise ValueError(f"expected the frames of {len(clips)} clips, got {len(frames)}: use locate_frames")
        self._run = next(iter(self._views))  # the last that could be shown
        first = self._seen(self._run)
        heads = min((maps[0].shape[1] for maps in first["maps"].values()), default=0)
        options = [("mean over heads", -1)] + [(f"head {h + 1}", h) for h in range(heads)]
        there = ["attention"] if first["maps"] else []
        there += ["true", "predicted", "mistake"] if first["activation"] is not None else []
        there += ["occluded"] if occlude else []
        if not there:
            raise ValueError("nothing to browse: a network without attention needs its activation, or occlusion")
        pictures = [(_PICTURES[name][0], name) for name in there]
        tips = [_PICTURES[name][1] for name in there]
        narrow, wide = {"button_width": "64px"}, w.Layout(width="300px")
        extra = {
            "picture": w.ToggleButtons(options=pictures, style={"button_width": "88px"}, tooltips=tips),
            "part": w.ToggleButtons(options=list(first["maps"]), style=narrow),
            "head": w.Dropdown(options=options, description="head", style=_LABEL, layout=w.Layout(width="220px")),
        }
        run = {"run": w.Dropdown(options=list(self._views), description="run", style=_LABEL, layout=wide)}
        view = w.Image(format="png", layout=w.Layout(max_width="100%", width="1200px"))
        view.add_class("bpi-figure")
        super().__init__(clips, first["labels"], classes, names, ("all", "right", "wrong"), view, extra, run)
        run["run"].observe(self._choose, names="value")
        self.children += (w.HTML(THEME, layout=w.Layout(display="none")),)

    def _seen(self, run: str) -> dict[str, Any]:
        """What a run's network returned, checked; looked up once."""
        if run not in self._known:
            views = self._views[run]
            views = views() if callable(views) else views
            maps = check_attention(views.maps, views.joints, axes=4) if views.maps else {}
            counts = {"labels": len(views.labels), "predictions": len(views.predictions)}
            counts |= {f"maps of {part}": len(weights) for part, (weights, *_) in maps.items()}
            if wrong := [f"{count} {name}" for name, count in counts.items() if count != self._count]:
                raise ValueError(
                    f"expected labels, predictions and maps of {self._count} clips, got {', '.join(wrong)} in {run}: "
                    "pass the same selection of clips everywhere"
                )
            self._known[run] = {**views._asdict(), "maps": maps, "labels": np.asarray(views.labels, dtype=int)}
        return self._known[run]

    def _choose(self, _=None):
        """Show the chosen run; one that was never looked at is, aside, while the one before can be browsed."""
        run = self.controls["run"].value
        if run in self._known:
            self._run = run
            self._changed()
            return
        self.message.value = self._waiting()
        if run in self._looking:
            return
        self._looking.add(run)
        job = self._worker.submit(self._seen, run)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop that answers meanwhile, as a kernel has one
            wait([job])
            job.add_done_callback(lambda done: self._looked(run, done.exception()))
        else:
            asyncio.wrap_future(job, loop=loop).add_done_callback(lambda done: self._looked(run, done.exception()))

    def _looked(self, run: str, error: BaseException | None):
        self._looking.discard(run)
        if self.controls["run"].value != run:  # another was chosen since
            return
        if error:
            self.controls["run"].value = self._run
            self.message.value = f"{escape(run)} cannot be shown: {escape(str(error))}"
        else:
            self._choose()

    def _waiting(self) -> str:
        """What to say while the chosen run is not the one shown."""
        run, before = escape(self.controls["run"].value), escape(self._run)
        said = f"Looking at the clips with {run}: this takes a while, once. Until then you see {before}. "
        return said if run != before else ""

    def _matching(self):
        indices, shown = super()._matching(), self.controls["shown"].value
        right = self._seen(self._run)["predictions"][indices] == self._labels[indices]
        return indices if shown == "all" else indices[right if shown == "right" else ~right]

    def _show(self, i: int):
        run, picture = self._seen(self._run), self.controls["picture"].value
        truth, said = int(self._labels[i]), int(run["predictions"][i])
        for name in ("part", "head"):
            self.controls[name].disabled = picture != "attention"
        verdict = "✓ recognised" if truth == said else f"✗ taken for <b>{escape(self._classes[said])}</b>"
        text = f"{escape(self._names[i])}: <b>{escape(self._classes[truth])}</b>, {verdict}"
        if picture == "mistake" and truth == said:
            self.view.layout.display = "none"
            text += ". Choose a wrong clip to see what added to the other class."
        else:
            draw = {"attention": self._attention, "occluded": self._occlusion}.get(picture, self._activation)
            self.view.value = draw(i, run).png()
        self.message.value = f"{self._waiting()}{text} ({len(self._matching())} clips to choose from)"

    def _attention(self, i: int, run: Mapping[str, Any]) -> Picture:
        part, head = self.controls["part"].value, self.controls["head"].value
        weights, query, key, groups = run["maps"][part]
        head = None if head < 0 else head
        return attention_card(self._clips[i], weights[i], query, key, groups, self._skeleton, part, head)

    def _occlusion(self, i: int, run: Mapping[str, Any]) -> Picture:
        if (self._run, i) not in self._dropped:  # asked for once: each takes dozens of forward passes
            self._dropped[self._run, i] = self._occlude(self._run, i)
        said = int(run["predictions"][i])
        drops = {name: values[..., said] for name, values in self._dropped[self._run, i].items()}
        title = f"What does “{self._classes[said]}” need?"
        return occlusion_card(self._clips[i], drops, self._skeleton, self._window, title)

    def _activation(self, i: int, run: Mapping[str, Any]) -> Picture:
        picture, names, what = self.controls["picture"].value, self._classes, "logit"
        truth, said = int(self._labels[i]), int(run["predictions"][i])
        if picture == "mistake":
            parts = run["activation"][i, 1] - run["activation"][i, 0]
            bias = run["bias"][said] - run["bias"][truth]
            title = f"What adds to “{names[said]}” more than to “{names[truth]}”?"
            what = "difference of logits"
        else:
            k = truth if picture == "true" else said
            parts = run["activation"][i, int(k != truth)]
            bias = run["bias"][k]
            title = f"What adds to the logit of “{names[k]}”?"
        return class_activation(self._clips[i], parts, bias, self._frames[i], self._skeleton, self._window, title, what)


def attention_browser(
    views: Mapping[str, Any | Callable[[], Any]],
    clips,
    frames,
    classes,
    skeleton: Skeleton,
    window: int,
    names=None,
    occlude: Callable[[str, int], Mapping[str, Any]] | None = None,
) -> w.VBox:
    """Browse what each part looks at, what adds to a class's logit and what the class needs, clip by clip.

    Args:
        views: run → what its network returned for the clips (`analysis.outputs.Views`), or a function that returns
            it, called when the run is first chosen: in a thread, where an event loop runs, so that a kernel goes on
            answering.
        clips: N clips (L, M, V, 3), metres; anything with a length that can be indexed.
        frames: (N, S) each step's frame of the clip (`analysis.activation.locate_frames`).
        classes: K names.
        skeleton: the joint set.
        window: T, frames of the network's window.
        names: N clip names; None numbers them.
        occlude: run and clip number → how far each of the K logits falls without "joints" (V, K), "parts" (P, K),
            "time" (S, K), called when it is first looked at; None: no occlusion.

    Returns:
        A VBox; `.controls` has run, class, clip, shown ("all", "right", "wrong"), picture ("attention", with
        activation "true", "predicted", "mistake", with `occlude` "occluded"), part, head (-1: mean); `.view.value` is
        the PNG, `.message.value` what it says, `.current` the clip's index or None.

    Raises:
        ValueError: no run, or nothing to show of it; numbers of clips, maps, labels, predictions, frames or names that
            differ; maps that do not fit.
    """
    return _AttentionBrowser(views, clips, frames, classes, skeleton, window, names, occlude)


class _ClipBrowser(_Browser):
    def __init__(self, clips, labels, classes, skeleton, names):
        self._skeleton = skeleton
        super().__init__(clips, labels, classes, names, (), w.HTML())

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


class _Finder(w.VBox):
    def __init__(self, find, branches, clips, labels, classes, skeleton, query, top):
        self._find, self._clips, self._labels = find, clips, np.asarray(labels, dtype=int)
        self._classes, self._skeleton, self._top = list(classes), skeleton, top
        style, wide = {"description_width": "84px"}, w.Layout(width="min(640px, 100%)")
        self.controls: dict[str, w.Widget] = {
            "text": w.Text(query, description="description", continuous_update=False, style=style, layout=wide),
            "branch": w.ToggleButtons(options=list(branches), style={"button_width": "64px"}),
        }
        self.message, self.player = w.HTML(), w.HTML()
        self.view = w.Image(format="png", layout=w.Layout(max_width="100%", width="1000px"))
        self.view.add_class("bpi-figure")
        super().__init__([*self.controls.values(), self.message, self.view, self.player])
        for control in self.controls.values():
            control.observe(self._draw, names="value")
        self._draw()

    def _draw(self, _=None):
        text, branch = self.controls["text"].value, self.controls["branch"]
        try:
            cosines = self._find(text)[:, branch.options.index(branch.value)]
        except ValueError as error:
            self.message.value = f"<b>Not found:</b> {escape(str(error))}"
            self.view.layout.display = self.player.layout.display = "none"
            return
        best = np.argsort(-cosines, kind="stable")[: self._top]
        titles = [f"{n}. {self._classes[self._labels[i]]} ({cosines[i]:.2f})" for n, i in enumerate(best, 1)]
        self.view.value = matches(cosines, self._labels, self._classes, text).png()
        self.player.value = animate_grid([self._clips[int(i)] for i in best], titles, self._skeleton).data
        self.message.value = f"the {len(best)} best of {len(cosines)} clips by the {branch.value} embedding play below"
        self.view.layout.display = self.player.layout.display = ""


def finder(
    find: Callable[[str], np.ndarray], branches: Sequence[str], clips, labels, classes: Sequence[str],
    skeleton: Skeleton, query: str, top: int = 5,
) -> w.VBox:  # fmt: skip
    """Type a description, see which clips are nearest to it.

    Args:
        find: description → (n, B) cosines of the clips, one column a branch; its ValueError is shown.
        branches: B names.
        clips: n clips (L, M, V, 3), metres; anything with a length that can be indexed.
        labels: (n,) classes of the clips.
        classes: K names.
        skeleton: the joint set.
        query: the first description.
        top: so many best clips play.

    Returns:
        A VBox; `.controls` has text and branch; `.view.value` is the PNG, `.player.value` the HTML of the best clips,
        `.message.value` what it says.
    """
    return _Finder(find, branches, clips, labels, classes, skeleton, query, top)
