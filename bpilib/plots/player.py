"""A player of skeletons that needs no kernel: a page inside a frame of its own.

Nothing leaks into the page or out of it, it needs no network, and it plays in JupyterLab, in nbconvert's HTML and
wherever a frame is shown. Where scripts are refused, the frame's text appears.
"""

import functools
import html
import json
from importlib import resources
from typing import Any

from bpilib.plots.style import THEME


@functools.cache
def _template() -> str:
    """The page, with SIZE (pixels) and PAYLOAD to be filled in."""
    return resources.files("bpilib.plots").joinpath("player.html").read_text(encoding="utf-8")


class Animation:
    """Shows as a player with play, slider, speed and drag-to-turn. `.data` is its HTML, `.payload` what it plays."""

    def __init__(self, payload: dict[str, Any], width: int, height: int, size: int):
        """width, height: of the frame in pixels; size: height of a clip's cell in pixels."""
        script = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        page = _template().replace("SIZE", str(size)).replace("PAYLOAD", script)
        self.payload = payload
        frame = f"width:100%;height:{height}px;border:1px solid #c4c9cf;border-radius:8px;background:#fff"
        self.data = (
            f'{THEME}<div style="max-width:{width}px"><iframe class="bpi-figure" srcdoc="{html.escape(page)}" '
            f'style="{frame}" loading="lazy" title="skeleton animation">'
            "Animation: trust this notebook (File → Trust Notebook) to see it play.</iframe></div>"
        )

    def _repr_html_(self) -> str:
        return self.data
