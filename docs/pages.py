"""The pages of the site that stand elsewhere in the repository, and links that lead to the same places there.

README.md is parted by its headings into the pages home, usage and training; other documents of the repository are pages
under their own paths; any other file that a page links to is copied beside them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parent.parent
# Headings of the README -> the page they stand on; the others stay at home.
PARTS: Final = {
    "Use": "usage.md",
    "Catalogues": "usage.md",
    "The index folder": "usage.md",
    "Models": "usage.md",
    "Troubleshooting": "usage.md",
    "Fine-tune the generator": "training.md",
    "Find out what pays": "training.md",
    "Train the retriever": "training.md",
}
TITLES: Final = {"usage.md": "# Usage", "training.md": "# Training"}
DOCUMENTS: Final = ("README.pt-BR.md", "indexes/README.md", "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK: Final = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def parted(readme: str) -> dict[str, str]:
    """Page -> its part of the README."""
    pages: dict[str, list[str]] = {"index.md": []} | {page: [title] for page, title in TITLES.items()}
    for section in re.split(r"^(?=## )", readme, flags=re.MULTILINE):
        heading = re.match(r"## (.*)", section)
        pages[PARTS.get(heading[1], "index.md") if heading else "index.md"].append(section)
    return {page: "\n".join(sections) for page, sections in pages.items()}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and the files that they link to."""
    texts = parted((ROOT / "README.md").read_text("utf-8"))
    texts |= {name: (ROOT / name).read_text("utf-8") for name in DOCUMENTS}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for link in _LINK.findall(page.content_string):
            target = _in_repository(page.src_uri, link)
            if target and (ROOT / target).is_file() and files.get_file_from_path(_on_site(target)) is None:
                files.append(added := File.generated(config, _on_site(target), abs_src_path=str(ROOT / target)))
                if added.is_documentation_page():
                    waiting.append(added)
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Links between places of the repository as links between places of the site."""
    anchors = {anchor: name for name, text in parted((ROOT / "README.md").read_text("utf-8")).items()
               for anchor in map(_anchor, re.findall(r"^#+ (.*)$", text, re.MULTILINE))}  # fmt: skip

    def moved(match: re.Match[str]) -> str:
        link, at = match[1], page.file.src_uri
        name, _, anchor = link.partition("#")
        target = _in_repository(at, name) if name else None
        if target == "README.md" or (not name and at in ("index.md", *TITLES)):
            here = anchors.get(anchor, "index.md")
        elif target and files.get_file_from_path(_on_site(target)):
            here = _on_site(target)
        else:
            return link
        way = posixpath.relpath(here, posixpath.dirname(at) or ".")
        return f"{way}#{anchor}" if anchor else way

    return _LINK.sub(moved, markdown)


def _in_repository(page: str, link: str) -> str | None:
    """The place in the repository that a link of a page means; None outside of it."""
    if ":" in link or not (path := link.partition("#")[0]):
        return None
    home = f"docs/{page}" if (ROOT / "docs" / page).is_file() else page
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), path))


def _on_site(target: str) -> str:
    return "index.md" if target == "README.md" else target.removeprefix("docs/")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
