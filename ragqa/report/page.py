"""One HTML page that needs nothing from outside: style and pictures are inside, there is no script."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Final

from ragqa.report.blocks import Section, escape

# Colours reach a contrast of 4.5 to 1 (WCAG AA) in both modes. Pictures keep white paper in the dark, since the colours
# of arms are chosen for it.
_STYLE: Final = """
:root { color-scheme: light dark; --paper: #ffffff; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de; --box: #f4f6f8;
  --link: #0550ae; --mark: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161b; --text: #e3e8ee; --quiet: #a3adb8; --line: #3a424c;
  --box: #1c2229; --link: #7cb7ff; --mark: #56b4e9; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 78rem; padding: 1rem; background: var(--paper); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word; }
p, ul, blockquote { max-width: 46rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { margin-top: 2.5rem; font-size: 1.3rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.8rem 0 .4rem; font-size: 1.05rem; } h4 { margin: 1.6rem 0 .4rem; font-size: 1rem; } h5 { margin: 0; font-size: .9rem; }
a { color: var(--link); } a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
nav ul { columns: 15rem; padding-left: 1.2rem; }
.lead { font-size: 1.1rem; background: var(--box); border-left: .3rem solid var(--mark); padding: .8rem 1rem; max-width: 54rem; }
.note { color: var(--quiet); font-size: .9rem; margin: .2rem 0 .5rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.n { text-align: right; } td.n { white-space: nowrap; }
thead th { vertical-align: bottom; background: var(--box); }
tbody th { font-weight: 600; min-width: 13rem; max-width: 16rem; position: sticky; left: 0; background: var(--paper); }
td:not(.n) { min-width: 6rem; } td:last-child:not(.n) { overflow-wrap: anywhere; min-width: 16rem; }
@media (max-width: 40rem) { tbody th { min-width: 8.5rem; } }
figure { margin: 1.5rem 0; } figcaption { color: var(--quiet); font-size: .9rem; max-width: 46rem; }
.paper { background: #ffffff; border: 1px solid var(--line); border-radius: .3rem; padding: .4rem; }
.paper svg { display: block; width: 100%; height: auto; min-width: 34rem; max-width: 64rem; margin: 0 auto; }
blockquote { margin: .4rem 0; padding-left: .8rem; border-left: .2rem solid var(--line); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: .6rem; }
.card { background: var(--box); padding: .6rem .7rem; border-radius: .3rem; font-size: .875rem; overflow-wrap: anywhere; }
.card p { margin: .3rem 0 0; }
@media print { body { max-width: none; } .scroll { overflow: visible; } }
"""
_PAGE: Final = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1><p class="note">$about</p></header>
<nav aria-label="Contents"><ul>
$contents
</ul></nav>
<main>
$sections
</main>
</body>
</html>
""")


def page(title: str, about: str, sections: Sequence[Section]) -> str:
    """The page as HTML.

    Args:
        title: of the page, plain text.
        about: a line below the title, plain text.
        sections: in order; the table of contents is made from them.
    """
    return _PAGE.substitute(
        title=escape(title),
        about=escape(about),
        style=_STYLE,
        contents="\n".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections),
        sections="\n".join(
            f'<section id="{s.anchor}">\n<h2>{escape(s.title)}</h2>\n'
            + "\n".join(block.html() for block in s.blocks)
            + "\n</section>"
            for s in sections
        ),
    )
