"""A player of skeletons that needs no kernel: a page inside a frame of its own."""

import html
import json

from bpilib.plots.style import THEME

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
