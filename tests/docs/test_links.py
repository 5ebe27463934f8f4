"""What a page points to is there: files, headings, images, and the paths of the recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.documents import PAGES, ROOT, named, prose, read

_LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
_ELSEWHERE = ("http://", "https://", "mailto:")


def links(page: Path, *, images: bool) -> list[str]:
    return [
        target
        for mark, target in _LINK.findall(prose(page))
        if bool(mark) is images and not target.startswith(_ELSEWHERE)
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in links(page, images=False):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{named(page)} links to {target!r}"
        assert file.is_relative_to(ROOT), f"{named(page)} links out of the repository: {target!r}"
        if anchor:
            assert anchor in anchors(file), f"{named(page)}: no heading for {target!r}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_image_of_a_page_is_there(page: Path) -> None:
    missing = [t for t in links(page, images=True) if not (page.parent / t).is_file()]
    assert not missing


def test_every_page_of_the_documentation_is_reached_from_its_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached = {(index.parent / target).resolve() for target in links(index, images=False)}
    pages = {page for page in PAGES if page.is_relative_to(index.parent)} - {index}
    assert not {named(page) for page in pages - reached}


def test_every_path_in_the_recipes_exists_as_far_as_it_is_given() -> None:
    """`src/penstock/wire/<transport>.py` is given as far as its folder."""
    planned = {"src/penstock/edge"}  # the page says itself that there is no such room yet
    for path in re.findall(r"`((?:src|tests|spec|docs)/[^`\s]*)`", read("CONTRIBUTING.md")):
        given = path if "<" not in path else path[: path.index("<")].rpartition("/")[0]
        if not any(given.startswith(folder) for folder in planned):
            assert (ROOT / given).exists(), path
