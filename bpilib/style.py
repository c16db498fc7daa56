"""The figure language: one colour per body part, one style, figures that show once, a player that needs no kernel."""

import base64
import functools
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from .files import write_atomically
from .skeleton import Skeleton

# Colours that stay apart under the three colour-vision deficiencies. A hand is GAP's arm and a foot GAP's leg: the
# joints are the same, so the colours are.
PART_COLORS = {
    "torso": "#D55E00",
    "arm": "#0062A8",
    "leg": "#2FB58A",
    "head": "#882255",
    "hand": "#0062A8",
    "hip": "#E69F00",
    "foot": "#2FB58A",
    "global": "#4A4A4A",
}
# The same hues, dark enough for letters (4.9:1 on white or more).
PART_INK = PART_COLORS | {"torso": "#B34E00", "leg": "#12805C", "foot": "#12805C", "hip": "#8F6200"}
# Plum: more than even, or for; ochre: less, or against. They stay apart under the colour-vision deficiencies.
_OCHRE_TO_PLUM = ["#5C3500", "#B87B14", "#F0D9A8", "#FFFFFF", "#F4C6D8", "#B4549B", "#4B1458"]
SIGNED_COLORS = LinearSegmentedColormap.from_list("signed", _OCHRE_TO_PLUM)
INK, PALE, GRAY, GRID = "#22262B", "#C4C9CF", "#6B7178", "#E3E6EA"
RIGHT, WRONG = "#0062A8", "#D55E00"  # of predictions, and of the two sides of any pair
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # our ticks are below; to look for ticks above takes a twelfth of the drawing
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


# A dark theme turns the lightness of a figure over and keeps its hues: white becomes #1f1f1f, every contrast stays.
# The rule reaches nothing but our figures; where a page drops style sheets they stay white cards.
THEME = (
    '<style>body[data-jp-theme-light="false"] .bpi-figure,body.vscode-dark .bpi-figure'
    "{filter:invert(.88) hue-rotate(180deg)}.bpi-figure{max-width:100%;border-radius:6px}</style>"
)


class Picture(Figure):
    """A figure outside pyplot: shows once, as a cell's last line or with `display`, in any notebook and theme."""

    def png(self, dpi: int = 100) -> bytes:
        """The figure as PNG bytes on white."""
        out, before = io.BytesIO(), self.dpi
        self.set_dpi(dpi)
        FigureCanvasAgg(self).print_png(out, pil_kwargs={"compress_level": 3})  # print_figure would draw twice
        self.set_dpi(before)
        return out.getvalue()

    def keep(self, path: str | Path) -> "Picture":
        """Write the figure to a PNG file, atomically and at print resolution; returns itself, to be shown."""
        write_atomically(path, self.png(150))
        return self

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        image = base64.b64encode(self.png()).decode()
        said = [self.get_suptitle(), *(ax.get_title() for ax in self.axes)]
        alt = html.escape("; ".join(dict.fromkeys(text for text in said if text))[:300])
        tag = f'{THEME}<img class="bpi-figure" alt="{alt}" src="data:image/png;base64,{image}">'
        return {"image/png": image, "text/html": tag}


def styled(function):
    """Runs a drawing function under the figure style, leaving matplotlib's global settings as they were."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return inner


def new_picture(width: float, height: float) -> Picture:
    """An empty figure of width × height inches that arranges its axes without overlaps."""
    return Picture(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def ratio_norm(*ratios: np.ndarray, least: float = 1.25) -> LogNorm:
    """A scale for multiples of an even share: white at 1×, as far down as up: to the largest, or a third at most."""
    tops = [max(np.nanmax(ratio), min(3, 1 / max(np.nanmin(ratio), 1e-3))) for ratio in ratios]
    top = max(least, float(max(tops)))
    return LogNorm(1 / top, top, clip=True)


def signed_norm(*values: np.ndarray) -> Normalize:
    """A scale for signed values: white at 0, as far down as up."""
    top = max(float(np.nanmax(np.abs(value))) for value in values) or 1.0
    return Normalize(-top, top)


def ratio_bar(figure, norm: LogNorm, label: str, **where):
    """The colour bar of a `ratio_norm`, its ticks in ×; `where` as figure.colorbar takes it: ax and shrink, or cax."""
    top = norm.vmax
    steps = [s for s in (1.1, 1.25, 1.5, 2, 3, 5, 10, 20) if top ** (1 / 3) < s <= top][-2:]
    look = {"aspect": 30, "pad": 0.01} if "ax" in where else {}
    bar = figure.colorbar(ScalarMappable(norm, SIGNED_COLORS), **look, **where)
    at = [1 / s for s in reversed(steps)] + [1, *steps]
    bar.set_ticks(at, labels=[f"{a:.3g}×" if a >= 1 else f"{a:.2g}×" for a in at])
    bar.ax.minorticks_off()
    bar.set_label(label)
    return bar


def short(name: str) -> str:
    """A joint's name for a crowded axis: "left hand tip" → "L hand tip"."""
    return name.replace("left ", "L ").replace("right ", "R ")


def part_of_joint(skeleton: Skeleton, model: str = "bpi") -> tuple[str, ...]:
    """The one part that gives each joint its colour; shoulders and hips, which are in two parts, go to the limb.

    Args:
        skeleton: the joint set.
        model: whose parts: "bpi" (torso, arm, leg) or "gap" (head, hand, hip, foot).

    Returns:
        V part names.
    """
    parts = skeleton.parts("joint", model)
    order = [p for p in ("torso", "hip", "head", "leg", "foot", "arm", "hand") if p in parts]  # the last one wins
    out = [order[0]] * skeleton.num_joints
    for part in order:
        for joint in parts[part]:
            out[joint] = part
    return tuple(out)


def part_of_bone(skeleton: Skeleton) -> tuple[str, ...]:
    """The part that colours each of the V-1 bones: torso where both ends are torso joints, else the child's part."""
    torso, of_joint = set(skeleton.parts()["torso"]), part_of_joint(skeleton)
    return tuple("torso" if {child, parent} <= torso else of_joint[child] for child, parent in skeleton.bones)


def check_clip(clip, skeleton: Skeleton) -> np.ndarray:
    """A clip as float64 (L, M, V, 3), or a ValueError that says what was expected."""
    clip = np.asarray(clip, dtype=float)
    if clip.ndim != 4 or not len(clip) or clip.shape[2] != skeleton.num_joints or clip.shape[3] != 3:
        raise ValueError(
            f"a clip of {skeleton.name} must be (L, M, {skeleton.num_joints}, 3) with L ≥ 1, got {clip.shape}: "
            "give it as the store does (frames, persons, joints, xyz)"
        )
    return clip


def present(poses: np.ndarray) -> np.ndarray:
    """(..., V, 3) → (...) bool, whether there is a person: finite coordinates that are not all zero."""
    return np.isfinite(poses).all((-1, -2)) & (poses != 0).any((-1, -2))


def check_attention(
    maps: Mapping, joints: Mapping, axes: int = 3
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, list]]:
    """Checks attention maps against the joints of their axes and says which keys belong to which part.

    Args:
        maps: part → weights (..., Vq, Vk) with `axes` axes in all; 2 means (rows, Vk).
        joints: part → (query joints (Vq,), key joints (Vk,)); the keys are the other parts' joints in this order.
        axes: expected number of axes.

    Returns:
        part → (weights, queries, keys, [(other part, start, stop), …]).

    Raises:
        ValueError: parts or shapes that do not fit each other.
    """
    if not maps or set(maps) - set(joints):
        raise ValueError(f"attention of {list(maps)} needs the joints of the same parts, got {list(joints)}")
    out = {}
    for part, weights in maps.items():
        weights = np.asarray(weights, dtype=float)
        query, key = (np.asarray(j, dtype=int).ravel() for j in joints[part])
        groups, start = [], 0
        for other in joints:
            if other != part:
                groups.append((other, start, start + len(joints[other][0])))
                start = groups[-1][2]
        expected = (len(query), len(key)) if axes > 2 else (len(key),)
        if weights.ndim != axes or weights.shape[-len(expected) :] != expected or start != len(key):
            raise ValueError(
                f"attention of {part} must have {axes} axes, the last {expected}, {start} keys from the other parts, "
                f"got {weights.shape}: pass a clip's attention and the attention_joints of its own model"
            )
        out[part] = (weights, query, key, groups)
    return out


# One page inside a frame of its own: nothing leaks in or out, it needs no kernel and no network, it plays in
# JupyterLab, in nbconvert's HTML and anywhere a frame is shown. Where scripts are refused the frame's text appears.
_PLAYER = """<!doctype html><html><head><meta charset="utf-8"><style>
body{margin:0;font:13px system-ui,sans-serif;color:#22262b;background:#fff;border-radius:8px}
#grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,SIZEpx),1fr));gap:10px 2px;padding:8px 6px}
figure{margin:0;text-align:center}canvas{width:100%;height:SIZEpx;cursor:grab;display:block;touch-action:pan-y}
figcaption{font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.n{color:#6b7178;font-variant-numeric:tabular-nums}
#bar{display:flex;flex-wrap:wrap;gap:6px 12px;align-items:center;padding:4px 12px 10px}#bar input{flex:1;min-width:90px}
button,select{font:inherit;border:1px solid #aab0b7;border-radius:6px;background:#f4f5f7;color:inherit;padding:3px 9px}
i{display:inline-block;width:18px;height:5px;border-radius:3px;margin:0 4px 2px 0}
</style></head><body><div id="grid"></div><div id="bar"><button aria-label="play or pause">&#9654;</button>
<input type="range" min="0" value="0" step="1" aria-label="frame"><select aria-label="speed">
<option value=".25">¼×</option>
<option value=".5">½×</option><option value="1" selected>1×</option><option value="2">2×</option></select>
<span id="key"></span><span class="n">drag a figure to turn it</span></div><script>(()=>{const D=DATA;
const $=s=>document.querySelector(s),grid=$("#grid"),play=$("button"),bar=$("input"),speed=$("select");
let t=0,turn=D.azimuth*Math.PI/180,on=!matchMedia("(prefers-reduced-motion: reduce)").matches,last=0;
const longest=Math.max(...D.clips.map(c=>c.frames.length));bar.max=longest-1;
$("#key").innerHTML=D.key.map(([n,c])=>`<i style="background:${c}"></i>${n}&ensp;`).join("")
+(D.clips.some(c=>c.frames.some(f=>f.length>1&&f[1]))?"hollow joints: person 2":"");
const cells=D.clips.map(c=>{const f=document.createElement("figure"),v=document.createElement("canvas"),
l=document.createElement("figcaption"),n=document.createElement("div");l.textContent=c.title;l.title=c.title;n.className="n";
f.append(l,v,n);grid.append(f);let x=null;v.onpointerdown=e=>{x=e.clientX;v.setPointerCapture(e.pointerId)};
v.onpointermove=e=>{if(x!==null){turn+=(e.clientX-x)/90;x=e.clientX;draw()}};v.onpointerup=()=>{x=null};
return{c,v,n}});
function draw(){for(const{c,v,n}of cells){const r=window.devicePixelRatio||1,w=v.clientWidth,h=v.clientHeight;
if(v.width!==Math.round(w*r)||v.height!==Math.round(h*r)){v.width=w*r;v.height=h*r}
const g=v.getContext("2d"),s=Math.min(w,h)/2.25/1000,k=t%c.frames.length,co=Math.cos(turn),si=Math.sin(turn);
g.setTransform(r,0,0,r,0,0);g.clearRect(0,0,w,h);g.lineCap="round";
c.frames[k].forEach((p,m)=>{if(!p)return;const q=[];
for(let j=0;j<p.length;j+=3)q.push([w/2-(p[j]*co+p[j+2]*si)*s,h/2-p[j+1]*s,p[j+2]*co-p[j]*si]);
D.bones.map(b=>[q[b[0]],q[b[1]],b[2]]).sort((a,b)=>b[0][2]+b[1][2]-a[0][2]-a[1][2]).forEach(([a,b,z])=>{
g.strokeStyle=z;g.lineWidth=Math.max(3,h/50);g.beginPath();g.moveTo(a[0],a[1]);g.lineTo(b[0],b[1]);g.stroke()});
q.forEach((a,j)=>{g.beginPath();g.arc(a[0],a[1],h/70+1,0,7);g.fillStyle=m?"#fff":D.joints[j];g.fill();
if(m){g.strokeStyle=D.joints[j];g.lineWidth=1.5;g.stroke()}})});
n.textContent=`frame ${c.at[k]+1} of ${c.length}`}bar.value=t;play.innerHTML=on?"&#10074;&#10074;":"&#9654;"}
function tick(now){if(on&&now-last>1000/D.fps/speed.value){last=now;t=(t+1)%longest;draw()}requestAnimationFrame(tick)}
play.onclick=()=>{on=!on;draw()};bar.oninput=()=>{on=false;t=+bar.value;draw()};
function fit(){try{window.frameElement.style.height=document.documentElement.offsetHeight+"px"}catch(e){}draw()}
addEventListener("resize",fit);fit();requestAnimationFrame(tick)})()</script></body></html>"""


class Animation:
    """Shows as a player with play, slider, speed and drag-to-turn. `.data` is its HTML, `.payload` what it plays."""

    def __init__(self, payload: dict, width: int, height: int, size: int):
        script = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        page = _PLAYER.replace("SIZE", str(size)).replace("DATA", script)
        self.payload = payload
        frame = f"width:100%;height:{height}px;border:1px solid #c4c9cf;border-radius:8px;background:#fff"
        self.data = (
            f'{THEME}<div style="max-width:{width}px"><iframe class="bpi-figure" srcdoc="{html.escape(page)}" '
            f'style="{frame}" loading="lazy" title="skeleton animation">'
            "Animation: trust this notebook (File → Trust Notebook) to see it play.</iframe></div>"
        )

    def _repr_html_(self) -> str:
        return self.data
