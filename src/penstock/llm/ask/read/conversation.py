"""What several readers share: texts, data URLs and the checks of a conversation as a whole."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.errors import RequestMalformed
from penstock.llm.ask.fields import Fields
from penstock.llm.ask.json_values import read_data_url
from penstock.llm.ask.request import EFFORTS, MediaPart, Message, Part, TextPart, Thinking
from penstock.llm.events import Json

ReadPart = Callable[[Fields], Part | None]


def read_content(
    fields: Fields, name: str, read_part: ReadPart, read_text: Callable[[str], Part | None]
) -> tuple[Part, ...]:
    """A string, or a list of objects that `read_part` reads. Nothing is what says nothing."""
    value = fields.raw(name)
    if value is None:
        return ()
    if isinstance(value, str):
        part = read_text(value) if value else None
        return () if part is None else (part,)
    # Given back, so that the list is checked and its places have their paths.
    holder = Fields({name: value}, fields.path, fields.extra)
    parts = (read_part(inner) for inner in holder.each(name))
    return tuple(part for part in parts if part is not None)


def say(text: str) -> Part:
    """A text as a part: what a string is where a list of parts may stand."""
    return TextPart(text=text)


def only_text(read_part: ReadPart, otherwise: str) -> ReadPart:
    """Reads parts that can only be text; `otherwise` says what is wrong with another."""

    def read(fields: Fields) -> Part | None:
        part = read_part(fields)
        if part is not None and not isinstance(part, TextPart):
            raise fields.wrong("type", otherwise)
        return part

    return read


def read_media_url(kind: str, url: str, name: str = "", media_type: str = "") -> MediaPart:
    """A picture or document at an address, or in one that holds it itself and says its type."""
    held = read_data_url(url)
    word = "image" if kind == "image" else "file"
    if held is None:
        return MediaPart(kind=word, url=url, media_type=media_type, name=name)
    return MediaPart(kind=word, media_type=held[0], data=held[1], name=name)


def read_file_data(file: Fields) -> MediaPart | None:
    """OpenAI's file in a request, which both of its dialects spell alike.

    Its bytes are a data URL. Bare base64, which does not say what it is, stays in `extra`.
    """
    data, name = file.text("file_data"), file.text("filename")
    if read_data_url(data) is not None:
        return read_media_url("file", data, name)
    for field, value in (("file_data", data), ("filename", name)):
        if value:
            file.note(field, value)
    return None


def read_effort(effort: str) -> Thinking | None:
    """How much to think, from its word."""
    return next((Thinking(effort=word) for word in EFFORTS if word == effort), None)


def need_messages(messages: list[Message], extra: dict[str, Json], name: str) -> None:
    """Refuses a request that says nothing. What only its own dialect can say is something."""
    if not messages and not any(path.startswith(f"{name}[") for path in extra):
        raise RequestMalformed(name, "has no message")
