"""Citations, whichever provider's: where a text says its words come from.

Every dialect tells of a cited page by an address and a title and has a shape of its own around
them. A writer passes what is in its dialect's shape through as it came, and makes of others' what
this file finds in them. What has no address (a place in a document that the caller sent) is no
source; results of a search are none before the text cites them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.llm.events import Data, Json, as_count, as_list, as_object, as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A cited page. `start` and `end` are the characters that cite it, 0 where nobody said."""

    url: str
    title: str = ""
    start: int = 0
    end: int = 0


def find_sources(data: Data) -> list[Source]:
    """The pages that something beside the text cites, in its order."""
    match data.kind:
        case "citation":
            values = [data.value]
        case "annotations" | "citations" | "search_results":
            values = as_list(data.value)
        case "groundingMetadata":  # Gemini
            chunks = as_list(as_object(data.value).get("groundingChunks"))
            values = [as_object(chunk).get("web") for chunk in chunks]
        case _:
            values = []
    return list(_read(values))


def _read(values: list[Json]) -> Iterator[Source]:
    for value in values:
        fields = as_object(value)
        fields = as_object(fields.get("url_citation")) or fields
        url = as_text(value) or as_text(fields.get("url")) or as_text(fields.get("uri"))
        if url:
            yield Source(
                url=url,
                title=as_text(fields.get("title")),
                start=as_count(fields.get("start_index")) or 0,
                end=as_count(fields.get("end_index")) or 0,
            )
