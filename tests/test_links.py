"""Links of README, docs and the changelog lead to files and headings that there are.

``mkdocs build --strict`` holds the site to the same; this needs nothing but the pages.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from pathlib import Path

import pytest
from pages import PAGES, ROOT

import prunec

LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]


def prose(page: Path) -> str:
    """Return a page without fenced blocks and inline code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as the site and code hosts derive them from headings."""
    text = page.read_text("utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    names = set(re.findall(r'id="([^"]+)"', text))
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        words = re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()
        names |= {re.sub(r"[-\s]+", "-", words), words.replace(" ", "-")}
    return names


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md" and not anchor.startswith("prunec."):
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_the_version_is_that_of_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[(\d.*?)\]", changes, re.M)[0] == version
    assert f"prunec-{version}-py3" in (ROOT / "docs" / "index.md").read_text("utf-8")


def test_docs_link_inside_docs() -> None:
    """The site holds what is in docs/: a link out of it would be dead there."""
    for page in (ROOT / "docs").rglob("*.md"):
        for link in LINK.findall(prose(page)):
            if not link.startswith(("http", "#")):
                target = (page.parent / link.partition("#")[0]).resolve()
                assert ROOT / "docs" in target.parents, f"{page.name}: {link}"


def test_files_named_in_code_are_there() -> None:
    """Docstrings, messages and recipes name pages of docs/ that there are."""
    for folder in ("prunec", "passes", "exporters", "recipes", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".html"):
                for name in re.findall(r"\bdocs/[\w/]+\.md", path.read_text("utf-8")):
                    made = f"-o {name}" in path.read_text("utf-8")
                    assert made or (ROOT / name).is_file(), f"{path}: {name}"


def test_docstrings_link_to_the_glossary() -> None:
    """Words that docstrings refer to are defined, and the main ones are referred to."""
    known = anchors(ROOT / "docs" / "glossary.md")
    named: set[str] = set()
    for path in (ROOT / "prunec").rglob("*.py"):
        text = path.read_text("utf-8")
        words = re.findall(r"See docs/glossary\.md: ([^.]+)\.", text)
        links = re.findall(r"\(glossary\.md#([\w-]+)\)", text)
        places = {
            word.strip().lower().replace(" ", "-") for one in words for word in one.split(",")
        }
        assert places | set(links) <= known, path
        named |= places
    words = "gate mask channel-group pinned constant carrier artifact plan form runner parity"
    assert set(words.split()) <= named


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / ".mkdocs.yml").read_text("utf-8")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert listed == pages


def test_the_api_page_holds_every_public_name() -> None:
    page = (ROOT / "docs" / "python_api.md").read_text("utf-8")
    documented = {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)$", page, re.M)}
    assert documented == set(prunec.__all__)


def test_public_classes_document_their_members() -> None:
    """Methods and properties without an underscore have a docstring of their own."""
    for name in prunec.__all__:
        public = getattr(prunec, name)
        assert public.__doc__, name
        members = vars(public) if isinstance(public, type) else {}
        for member, value in members.items():
            function = value.fget if isinstance(value, property) else value
            function = getattr(function, "__func__", function)
            if not member.startswith("_") and callable(function):
                assert function.__doc__, f"{name}.{member}"
