"""A text box for JupyterLab: which clips fit a description."""

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as w
import numpy as np

from .drawing import animate_grid
from .maps import matches
from .skeleton import Skeleton


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
