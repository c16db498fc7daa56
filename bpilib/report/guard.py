"""What a page shows of a notebook that somebody else may have executed: nothing runs in it but players.

A page's policy lets browsers run no script without its nonce and fetch nothing. Frames that carry a page of their own
(`bpilib.plots.player`) get the nonce, and are sandboxed: they can't reach the page around them, other files or the
network. Everything else that could run is taken out as well.
"""

import secrets

from bs4 import BeautifulSoup, Tag

POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "media-src data:; base-uri 'none'; form-action 'none'"
)
LEFT_OUT = ("script", "iframe", "frame", "frameset", "object", "embed", "applet", "portal", "form", "base", "link")
FRAME = ("srcdoc", "class", "style", "title", "loading", "width", "height")  # attributes that a frame keeps
SCRIPT_URLS = ("javascript:", "vbscript:", "data:text", "data:application", "data:image/svg")
FETCHED = ("src", "srcset", "href", "xlink:href", "poster", "background", "data")
NOTE = "(a script or a page from elsewhere, which reports leave out)"


def guard(page: str) -> str:
    """A whole HTML page with the policy in its head, without what could run, its players sandboxed."""
    soup = BeautifulSoup(page, "html.parser")
    nonce = secrets.token_urlsafe(16)
    for tag in soup.find_all(LEFT_OUT):
        if tag.decomposed or tag.parent is None:  # within another one
            continue
        if tag.name == "iframe" and tag.has_attr("srcdoc"):
            _sandbox(tag, nonce)
        elif tag.name == "script" and str(tag.get("type", "")).endswith("json"):
            tag.decompose()
        else:
            tag.replace_with(soup.new_string(NOTE))
    for tag in soup.find_all("meta", attrs={"http-equiv": True}):
        tag.decompose()
    for tag in soup.find_all(True):
        for name in [name for name, value in tag.attrs.items() if _runs_or_fetches(tag.name, name, value)]:
            del tag[name]
    policy = {"http-equiv": "Content-Security-Policy", "content": POLICY.format(nonce=nonce)}
    assert soup.head is not None, "the template of a page has a head"
    soup.head.insert(0, soup.new_tag("meta", attrs=policy))
    return str(soup)


def _sandbox(frame: Tag, nonce: str) -> None:
    """Leave a frame its own page alone, whose scripts, and no others, may run."""
    inner = BeautifulSoup(str(frame["srcdoc"]), "html.parser")
    for script in inner.find_all("script"):
        script["nonce"] = nonce
    frame.attrs = {name: value for name, value in frame.attrs.items() if name in FRAME}
    frame["srcdoc"], frame["sandbox"] = str(inner), "allow-scripts"


def _runs_or_fetches(tag: str, name: str, value: object) -> bool:
    """Whether an attribute is a handler of events, or an address that runs as a script, opens as a page of its own, or
    is fetched from the network; where a link leads is for the reader to see."""
    address = "".join(sign for sign in str(value)[:200].lower() if sign > " ")  # as browsers read it
    if name.lower().startswith("on") or address.startswith(SCRIPT_URLS):
        return True
    return tag != "a" and name in FETCHED and address.startswith(("http:", "https:", "//", "\\\\", "ftp:", "file:"))
