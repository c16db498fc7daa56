"""What a page shows of a notebook that somebody else may have executed: nothing runs in it but players.

A page is parsed as browsers parse, and written anew with the elements and attributes of a list: each "<" in it begins a
tag of that list, wherever a browser may think it stands, in a comment, a style or another language such as SVG.

Its policies let browsers run no script without its nonce, none that is not in the page, and fetch nothing. Frames that
carry a page of their own (`bpilib.plots.player`) get the nonce, and are sandboxed: they can't reach the page around
them, other files or the network.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from html import escape

from bleach.html5lib_shim import HTMLParser, getTreeWalker

POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "media-src data:; base-uri 'none'; form-action 'none'"
)
INLINE = "script-src 'unsafe-inline'"  # a second policy: with the nonce, which players can read, nothing is fetched
HEAD = (
    f'<meta content="{POLICY}" http-equiv="Content-Security-Policy"/>'
    f'<meta content="{INLINE}" http-equiv="Content-Security-Policy"/>'
    '<meta charset="utf-8"/><meta content="width=device-width, initial-scale=1.0" name="viewport"/>'
)
LEFT_OUT = ("script", "iframe", "frame", "frameset", "object", "embed", "applet", "portal", "form", "base", "link")
FRAME = ("srcdoc", "class", "style", "title", "loading", "width", "height")  # attributes that a frame keeps
TAGS = frozenset(
    """
    html head title style body main header footer nav section article aside address h1 h2 h3 h4 h5 h6 hgroup p div span
    a br wbr hr pre blockquote ol ul li dl dt dd menu figure figcaption table caption colgroup col thead tbody tfoot tr
    th td em strong small s cite q dfn abbr data time code var samp kbd sub sup i b u mark ruby rt rp bdi bdo ins del
    details summary img picture source audio video input label progress meter center font big tt strike
    svg g defs symbol use path rect circle ellipse line polyline polygon text tspan textPath desc marker linearGradient
    radialGradient stop clipPath mask pattern image
    """.split()
)
PLAYED = TAGS | set("script canvas button select optgroup option output fieldset legend".split())  # within a frame
ATTRIBUTES = frozenset(
    """
    abbr align alt bgcolor border cellpadding cellspacing checked class color cols colspan controls datetime dir
    disabled download face for frame headers height hidden high href id label lang loading loop low max media min
    multiple muted name nowrap open optimum placeholder poster rel reversed role rowspan rows rules scope scoped
    selected size span src start step style summary tabindex title translate type valign value width
    clip-path clip-rule clipPathUnits cx cy d dominant-baseline dx dy fill fill-opacity fill-rule font-family font-size
    font-style font-weight fx fy gradientTransform gradientUnits letter-spacing marker-end marker-mid marker-start
    markerHeight markerUnits markerWidth mask maskContentUnits maskUnits offset opacity orient overflow paint-order
    pathLength patternContentUnits patternTransform patternUnits points preserveAspectRatio r refX refY rotate rx ry
    shape-rendering spreadMethod startOffset stop-color stop-opacity stroke stroke-dasharray stroke-dashoffset
    stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity stroke-width text-anchor text-rendering textLength
    transform vector-effect version viewBox visibility x x1 x2 xlink:href y y1 y2
    """.split()
)
MORE_ATTRIBUTES = re.compile(r"(?:aria|data)-[a-z0-9-]+")
MEDIA = ("img", "image", "input", "audio", "video", "source")
MEDIA_URLS = re.compile(r"data:(?:image/(?:png|jpeg|gif|webp|bmp|avif)|audio/[\w.+-]+|video/[\w.+-]+)[;,]")
LINKS = ("http", "https", "mailto")
NOTE = "(a script or a page from elsewhere, which reports leave out)"
_PREFIXES = {"http://www.w3.org/1999/xlink": "xlink:"}
_IGNORED = dict.fromkeys(range(33))  # signs that browsers leave out of an address, or of its ends


def guard(page: str) -> str:
    """A whole HTML page with the policies in its head, without what could run, its players sandboxed."""
    return _rewrite(page, TAGS, secrets.token_urlsafe(16))


def _rewrite(page: str, tags: frozenset[str], nonce: str) -> str:
    """A page with these elements alone; of others their text is kept, or a note."""
    written = ["<!DOCTYPE html>\n"]
    opened: list[tuple[str, Callable[[str], str]]] = [("", _as_text)]  # the end of an element, how its text is written
    for token in getTreeWalker("etree")(HTMLParser().parse(page)):
        kind, write = token["type"], opened[-1][1]
        if kind in ("Characters", "SpaceCharacters"):
            written.append(write(token["data"]))
        elif kind == "EndTag":
            written.append(opened.pop()[0])
        elif kind in ("StartTag", "EmptyTag"):
            tag = token["name"]
            given = {_PREFIXES.get(space, "") + name: value for (space, name), value in token["data"].items()}
            start, end, inside = _rewrite_element(tag, given, tags, nonce) if write is _as_text else ("", "", _as_none)
            written.append(start)
            if kind == "StartTag":
                opened.append((end, inside))
    return "".join(written)


def _rewrite_element(
    tag: str, given: Mapping[str, str], tags: frozenset[str], nonce: str
) -> tuple[str, str, Callable[[str], str]]:
    """The start of an element, its end, and how the text in it is written."""
    kept = {name: value for name, value in given.items() if _is_harmless(tag, name, value)}
    if tag == "iframe" and "srcdoc" in given and tags is TAGS:
        kept = {name: value for name, value in given.items() if name in FRAME}
        kept |= {"srcdoc": _rewrite(given["srcdoc"], PLAYED, nonce), "sandbox": "allow-scripts"}
        return _start(tag, kept), f"</{tag}>", _as_none
    if tag == "script" and tag in tags and "src" not in given:
        return _start(tag, kept | {"nonce": nonce}), f"</{tag}>", str
    if tag in LEFT_OUT:
        return "" if given.get("type", "").endswith("json") else NOTE, "", _as_none
    if tag not in tags:
        return "", "", _as_text
    start = _start(tag, kept)
    if tag == "head" and tags is TAGS:
        start += HEAD.format(nonce=nonce)
    elif tag == "pre":  # browsers leave out a first new line
        start += "\n"
    return start, f"</{tag}>", _as_style if tag == "style" else _as_text


def _start(tag: str, attributes: Mapping[str, str]) -> str:
    quoted = [f'{name}="{_as_text(value).replace(chr(34), "&quot;")}"' for name, value in attributes.items()]
    return f"<{' '.join([tag, *quoted])}>"


def _as_text(text: str) -> str:
    return escape(text, quote=False)


def _as_style(text: str) -> str:
    """CSS without a beginning of a tag: it may be read as HTML, as that of an SVG is."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\3c ", text)


def _as_none(_: str) -> str:
    return ""


def _is_harmless(tag: str, name: str, value: str) -> bool:
    """Whether an attribute is known, and no address that runs as a script, opens as a page of its own, or is fetched
    from the network; where a link leads is for the reader to see."""
    if name not in ATTRIBUTES:
        return bool(MORE_ATTRIBUTES.fullmatch(name))
    if name not in ("src", "href", "xlink:href", "poster"):
        return True
    address = value.translate(_IGNORED)
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", address[:100], re.IGNORECASE)
    if tag == "a":
        return scheme is None or scheme[1].lower() in LINKS
    if tag in MEDIA:
        return not address.startswith(("/", "\\")) if scheme is None else bool(MEDIA_URLS.match(address[:100].lower()))
    return address.startswith("#")
