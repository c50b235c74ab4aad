"""One HTML file with everything in it, which asks no other address."""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from collections.abc import Mapping
from html import escape

from dlframe.types import printable

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6b7c;
  --line: #dfe4ea; --paper: #fff; --back: #f5f7f9; --blue: #0072b2;
  --orange: #b36b00; --red: #c04a00; --green: #00785a; --best: #fff6e0 }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e9ef; --soft: #9aa7b5; --line: #323b47; --paper: #1b222b; --back: #12171d;
  --blue: #6cb8e8; --orange: #e9b04a; --red: #f08a4b; --green: #4fc9a4; --best: #3a3117 }
  img { filter: invert(.895) hue-rotate(180deg) } }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back) }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem }
p { margin: .35rem 0; max-width: 48rem }
a { color: var(--blue) }
.soft { color: var(--soft) }
.card, figure { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; margin: 0 0 1rem;
  padding: 1rem 1.25rem }
.value { font-size: 2rem; font-weight: 650; margin: 0; line-height: 1.3; font-variant-numeric: tabular-nums }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem }
.tiles .card { margin: 0; min-width: 0 }
.tiles + .card { margin-top: 1rem }
.card h3, figcaption { font-size: .8rem; font-weight: 600; letter-spacing: .04em; color: var(--soft); margin: 0 0 .5rem }
dl { display: grid; grid-template-columns: fit-content(50%) minmax(0, 1fr); gap: .25rem 1.25rem; margin: 0 }
dt { color: var(--soft); overflow-wrap: anywhere }
dd { margin: 0; overflow-wrap: anywhere }
code, pre { font: .88em/1.5 ui-monospace, monospace }
pre { margin: .5rem 0 0; padding: .75rem 1rem; background: var(--back); border-radius: .4rem; white-space: pre-wrap;
  overflow-wrap: anywhere }
figure { overflow-x: auto }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: .3rem }
.scroll { overflow: auto; max-height: 80vh; padding: 0 }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .75rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { position: sticky; top: 0; background: var(--paper); font-weight: 600; z-index: 1 }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer }
th[aria-sort=ascending] button::after { content: " \\2191"; content: " \\2191" / "" }
th[aria-sort=descending] button::after { content: " \\2193"; content: " \\2193" / "" }
.number { text-align: right }
.failure { white-space: normal; min-width: 16rem; overflow-wrap: anywhere }
tr.best td { background: var(--best) }
.complete { color: var(--green) } .pruned { color: var(--soft) } .failed { color: var(--red) } .running { color: var(--orange) }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells]
  heads.forEach((head, column) => {
    const button = document.createElement("button")
    button.append(...head.childNodes)
    head.append(button)
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1
      heads.forEach(other => other.removeAttribute("aria-sort"))
      head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending")
      const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent
      const order = (a, b) => {
        const x = key(a), y = key(b)
        if (x === "" || y === "") return (x === "") - (y === "")
        return up * (x - y || x.localeCompare(y, undefined, { numeric: true }))
      }
      body.append(...[...body.rows].sort(order))
    }
  })
}
"""
"""Sorts a table by the column that is clicked; what is missing stays last."""

NUMBER = ' class="number"'
"""Attribute of a cell that is aligned as a number."""


def page(title: str, body: str) -> str:
    """Return a page of HTML, for a browser with or without scripts.

    Its policy allows its own style and script, and pictures that it holds, and nothing else.

    Args:
        title: Its title, any text.
        body: HTML of what follows the title.
    """
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escaped(title)}</h1>
{body}</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def pictures(figures: Mapping[str, bytes]) -> str:
    """Return figures, PNG or SVG by title, as HTML.

    Raises:
        ValueError: A figure is neither.
    """
    found = []
    for title, picture in figures.items():
        image = f'<img src="{_data(title, picture)}" alt="{escaped(title)}">'
        found.append(f"<figure><figcaption>{escaped(title)}</figcaption>{image}</figure>\n")
    return "".join(found)


def escaped(value: object) -> str:
    """Return an untrusted text as HTML: control characters and marks of writing direction are escaped too."""
    return escape(printable(str(value)))


def _digest(text: str) -> str:
    """Return how a policy names a script or a style."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(title: str, picture: bytes) -> str:
    """Return a picture as a URL; as one, an SVG runs no script and loads nothing."""
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif picture.lstrip().startswith((b"<?xml", b"<svg")):
        kind = "svg+xml"
    else:
        raise ValueError(f"figure '{title}': must be PNG or SVG. Received: {picture[:8]!r}")
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"


def cell(shown: str, value: float) -> str:
    """Return a cell of a number, by which it is sorted; what is not finite is last."""
    return f'<td class="number" data-sort="{repr(value) if math.isfinite(value) else ""}">{shown}</td>'
