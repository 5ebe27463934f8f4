"""The opening record of an answer: what every dialect needs to write it, kept with the answer.

Its events alone do not say when an answer began, what it is called, or what its client asked to
have said around it. So that it can be written later, by anybody, for any client, the first record
of its log says so. Records of token events follow it; its own type is none of theirs, and writers
are never given it.

What is written here may be read by whoever may read the answer: no prompt, no credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.core.errors import BodyMalformed
from penstock.core.record import NewRecord, Record
from penstock.llm.events import Json, as_count, as_object, as_text, parse_object
from penstock.llm.write import agui, openai_chat, openai_responses, vercel
from penstock.llm.write.dialects import find_out_dialect
from penstock.llm.write.writer import Envelope, TokenWriter, as_wire_json

RECORD_TYPE: Final = "answer"

# Clients send parts of it back to providers, who take no other characters and no long ids.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an answer is, beside its events.

    Attributes:
        id: 1 to 128 letters, digits, `-` and `_`; the ids of every dialect are made from it.
        created_at: when it began, in whole seconds since 1970.
        model: as the client named it; "" where it named none.
        dialect: the client's, by its name in `OUT_DIALECTS`.
        options: what the writer of that dialect is told beside: of openai-chat `include_usage`, of
            openai-responses `request` (what a response repeats of it), of vercel `message_id`, of
            agui `thread_id` and `run_id`. They hold for that dialect alone.
        fingerprint: a keyed hash of the request; "" where nobody may join by a key.

    Raises:
        BodyMalformed: the id or the time cannot be one.
    """

    id: str
    created_at: int
    model: str = ""
    dialect: str = ""
    options: Mapping[str, Json] = field(default_factory=dict[str, Json])
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if _ID.match(self.id) is None:
            raise BodyMalformed("of an 'answer' record has no usable 'id'")
        if as_count(self.created_at) is None:
            raise BodyMalformed("of an 'answer' record has no usable 'created_at'")

    def to_record(self) -> NewRecord:
        """The record that opens the answer's log."""
        said: dict[str, Json] = {"id": self.id, "created_at": self.created_at, "model": self.model}
        said |= {"dialect": self.dialect, "options": dict(self.options)}
        if self.fingerprint:
            said["fingerprint"] = self.fingerprint
        return NewRecord(as_wire_json(said), RECORD_TYPE)

    @classmethod
    def from_record(cls, record: Record | NewRecord) -> About:
        """What `to_record` wrote. Unknown fields are ignored, and missing ones say nothing.

        Raises:
            BodyMalformed: the record is no answer's first one.
        """
        if record.type != RECORD_TYPE:
            raise BodyMalformed(f"is a record of type {record.type[:64]!r}, which opens no answer")
        payload = _object_of(record.payload)
        created_at = as_count(payload.get("created_at"))
        return cls(
            id=as_text(payload.get("id")),
            created_at=-1 if created_at is None else created_at,
            model=as_text(payload.get("model")),
            dialect=as_text(payload.get("dialect")),
            options=as_object(payload.get("options")),
            fingerprint=as_text(payload.get("fingerprint")),
        )

    @property
    def envelope(self) -> Envelope:
        """What every writer is told."""
        return Envelope(id=self.id, created_at=self.created_at, model=self.model)

    def make_writer(self, dialect: str, *, starting_after: int | None = None) -> TokenWriter:
        """A new writer of a dialect for this answer, in the client's own or in another.

        `starting_after` is the sequence number of the last event the reader has, which only
        openai-responses knows; others ignore it. Without options the usage is written.

        Raises:
            LookupError: there is no such dialect.
        """
        options = dict(self.options) if dialect == self.dialect else {}
        envelope = self.envelope
        match dialect:
            case openai_chat.DIALECT:
                wants_usage = options.get("include_usage") is not False
                return openai_chat.Writer(envelope, include_usage=wants_usage)
            case openai_responses.DIALECT:
                request = as_object(options.get("request"))
                after = -1 if starting_after is None else starting_after
                return openai_responses.Writer(envelope, request=request, starting_after=after)
            case vercel.DIALECT:
                return vercel.Writer(envelope, message_id=as_text(options.get("message_id")))
            case agui.DIALECT:
                thread, run = as_text(options.get("thread_id")), as_text(options.get("run_id"))
                return agui.Writer(envelope, thread_id=thread, run_id=run)
            case _:
                return find_out_dialect(dialect).make_writer(envelope)


def _object_of(payload: bytes) -> dict[str, Json]:
    try:
        return parse_object(payload.decode()) or {}
    except UnicodeDecodeError:
        return {}
