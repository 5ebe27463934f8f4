"""What all readers of requests share: JSON from a client, narrowed with the path to every place.

A client is told what is wrong and where, so nothing here guesses: a value of the wrong type is
`RequestMalformed`, never absent. (Answers of providers are read the other way round, in
`penstock.llm.events`.) `null` is as if the field were not there, as every dialect has it. What a
reader did not take of an object stays in `extra`, under its path. No dialect's field names here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

from penstock.core.errors import RequestMalformed
from penstock.core.limits import MAX_MODEL_CHARACTERS, MAX_REQUEST_ITEMS
from penstock.llm.ask.json_values import check_json, parse_json
from penstock.llm.events import Json

# Seeds are 64 bits wide.
_MAX_NUMBER: Final = 2**63


def parse_body(body: bytes | Mapping[str, Json], max_bytes: int) -> dict[str, Json]:
    """The JSON object that a request's body is, checked for size, depth and numbers.

    Raises:
        RequestMalformed: it is none.
    """
    try:
        if isinstance(body, Mapping):
            check_json(value := dict(body))
        elif len(body) > max_bytes:
            raise ValueError(f"has more than {max_bytes} bytes")
        else:
            value = parse_json(body.decode())
    except UnicodeDecodeError:
        raise RequestMalformed("", "is not UTF-8") from None
    except ValueError as error:
        raise RequestMalformed("", str(error)) from None
    if not isinstance(value, dict):
        raise RequestMalformed("", "is not a JSON object")
    return value


class Fields:
    """One object of a body. What is read is taken; `rest` puts what is left into `extra`."""

    __slots__ = ("_left", "extra", "path")

    def __init__(self, value: Json, path: str, extra: dict[str, Json]) -> None:
        if not isinstance(value, dict):
            raise RequestMalformed(path, "is not an object")
        self._left = dict(value)
        self.path, self.extra = path, extra

    def at(self, name: str) -> str:
        """The path of a field of this object."""
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, reason: str) -> RequestMalformed:
        """The error that says what is wrong with a field, to be raised."""
        return RequestMalformed(self.at(name), reason)

    def __contains__(self, name: str) -> bool:
        return self._left.get(name) is not None

    def raw(self, name: str) -> Json:
        """A field as it is; None where it is absent or null."""
        return self._left.pop(name, None)

    def text(self, name: str, default: str | None = "") -> str:
        """A string; `default` where there is none, and None for it makes that an error."""
        value = self.raw(name)
        if value is None:
            if default is None:
                raise self.wrong(name, "is missing")
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "is not a string")
        return value

    def name(self, name: str) -> str:
        """A string that must be there and say something."""
        value = self.text(name, None)
        if not value:
            raise self.wrong(name, "is empty")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "is not a number")
        if abs(value) > _MAX_NUMBER:
            raise self.wrong(name, "is larger than any number it can be")
        return value

    def whole(self, name: str, least: int | None = None) -> int | None:
        """A whole number, also written as 12.0."""
        value = self.number(name)
        if value is None:
            return None
        if value != int(value):
            raise self.wrong(name, "is not a whole number")
        if least is not None and value < least:
            raise self.wrong(name, f"is below {least}")
        return int(value)

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return value

    def word(self, name: str, words: tuple[str, ...], default: str | None = None) -> str:
        """One of these words; `default` as for `text`."""
        value = self.text(name, default)
        if value != default and value not in words:
            raise self.wrong(name, f"is {value[:40]!r}; it can be {', '.join(words)}")
        return value

    def items(self, name: str) -> list[Json] | None:
        """A list."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(name, "is not a list")
        if len(value) > MAX_REQUEST_ITEMS:
            raise self.wrong(name, f"has more than {MAX_REQUEST_ITEMS} items")
        return value

    def child(self, name: str) -> Fields | None:
        """An object."""
        value = self.raw(name)
        return None if value is None else Fields(value, self.at(name), self.extra)

    def schema(self, name: str) -> Json:
        """An object that is handed on unread; None where it is absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "is not an object")
        return value

    def each(self, name: str) -> Iterator[Fields]:
        """The objects of a list; none where it is absent."""
        for place, value in enumerate(self.items(name) or []):
            yield Fields(value, f"{self.at(name)}[{place}]", self.extra)

    def texts(self, name: str) -> tuple[str, ...]:
        """A string, or a list of them."""
        value = self.raw(name)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(name, "is neither a string nor a list of strings")
        return tuple(cast("list[str]", items))

    def notes(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        value = self.schema(name)
        notes = value if isinstance(value, dict) else {}
        if not all(isinstance(note, str) for note in notes.values()):
            raise self.wrong(name, "has a value that is not a string")
        return cast("dict[str, str]", notes)

    def keep(self) -> None:
        """Puts this object into `extra`, as what it is: the vocabulary has no word for it."""
        self.extra[self.path] = dict(self._left)
        self._left.clear()

    def note(self, name: str, value: Json) -> None:
        """Puts a taken field back into `extra`."""
        self.extra[self.at(name)] = value

    def rest(self) -> None:
        """Puts what nobody took into `extra`."""
        for name, value in self._left.items():
            if value is not None:
                self.extra[self.at(name)] = value


def read_model(fields: Fields, name: str = "model", *, is_needed: bool = True) -> str:
    """The model's name, which can go into a path and a log."""
    model = fields.text(name, None if is_needed else "")
    if is_needed and not model:
        raise fields.wrong(name, "is empty")
    if len(model) > MAX_MODEL_CHARACTERS or not model.isprintable():
        raise fields.wrong(name, "is no name of a model")
    return model
