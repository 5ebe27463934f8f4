"""How the recorded upstream's answer comes: what a request can ask for, and where it says it.

A request names knobs in its JSON body's `penstock`, behind a `?` in its model's name, in the header
`Penstock-Knobs` (both written as a query is) or in its own query; a later one of these wins. The
model's name and the header go through a gateway that writes the body anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Literal, Self
from urllib.parse import parse_qsl

from penstock.llm.events import Json

HEADER: Final = "Penstock-Knobs"

# More of them than there are knobs is no request of a test.
_MAX_FIELDS: Final = 64

_WORDS: Final = {"cut": ("broken", "clean"), "error": ("told", "garbage", "endless")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How an answer comes. Events are counted as they go over the wire, from 1, whatever they hold.

    Attributes:
        tokens_per_s: events a second; 0 is as fast as the connection takes them.
        burst: events that leave together; the pace stays.
        first_token_s: seconds before the response head and the first event.
        early_head: 1 sends the head at once; `first_token_s` is then before the first event.
        stall_after, stall_s: after so many events, a pause of so many seconds.
        cut_after, cut: after so many events the body ends, "broken" (the connection closes without
            the last chunk) or "clean" (it looks like an end).
        status: this error status instead of a stream, in the dialect's own form.
        retry_after_s: what that error says of when to try again.
        error_after, error: after so many events an error: "told" in the dialect's own form, with
            the end of the body; "garbage", bytes of no dialect; or "endless", an event that grows
            until the client leaves. With `status`, "garbage" is a page of HTML.
        fail_times: only so many requests with the same model name go wrong as the other knobs say
            (with `status` 503, where they say nothing); those after them do not.
        obeys_limit: 0 writes on when the request's maximum of output tokens is met. A recording
            always does.
        split_seed: writes are cut at random bytes, the same for the same seed.
    """

    tokens_per_s: float = 40.0
    burst: int = 1
    first_token_s: float = 0.0
    early_head: int = 0
    stall_after: int | None = None
    stall_s: float = 0.0
    cut_after: int | None = None
    cut: Literal["broken", "clean"] = "broken"
    status: int | None = None
    retry_after_s: int | None = None
    error_after: int | None = None
    error: Literal["told", "garbage", "endless"] = "told"
    fail_times: int | None = None
    obeys_limit: int = 1
    split_seed: int | None = None

    @classmethod
    def read(cls, values: Mapping[str, Json]) -> Self:
        """The knobs named in `values`, numbers also as text.

        Raises:
            ValueError: there is no such knob, or its value is not one.
        """
        known = {field.name: str(field.type) for field in fields(cls)}
        read: dict[str, float | int | str] = {}
        for name, value in values.items():
            kind = known.get(name)
            if kind is None:
                raise ValueError(f"no knob {name[:64]!r}; there are {', '.join(known)}")
            read[name] = _read_knob(name, kind, value)
        return cls(**read)  # pyright: ignore[reportArgumentType]  # each checked above

    def after(self, requests: int) -> Self:
        """How a request goes before which there were so many with the same model name."""
        if self.fail_times is None:
            return self
        if requests >= self.fail_times:
            return replace(self, status=None, cut_after=None, error_after=None)
        if self.status is None and self.cut_after is None and self.error_after is None:
            return replace(self, status=503)
        return self


def read_query(text: str) -> dict[str, Json]:
    """The values in a text written as a query is.

    Raises:
        ValueError: it is none, or an endless one.
    """
    if not text:
        return {}
    return dict(
        parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=_MAX_FIELDS)
    )


def _read_knob(name: str, kind: str, value: Json) -> float | int | str:
    words = _WORDS.get(name)
    if words is not None:
        if value not in words:
            raise ValueError(f"knob {name!r} is {' or '.join(repr(word) for word in words)}")
        return str(value)
    try:
        number = float(str(value)) if kind == "float" else int(str(value))
    except ValueError:
        number = -1
    lowest, highest = (400, 599) if name == "status" else (0, 1e9)
    if not lowest <= number <= highest:
        raise ValueError(f"knob {name!r} needs a number from {lowest} to {highest:g}")
    return number
