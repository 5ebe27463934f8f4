"""Every dialect that can be written, by its name: its writer, its errors, its whole answers.

The one place that knows all of them. A new dialect is a file of its own and a row here. What a
dialect wants to know beside the `Envelope` (a usage chunk that was asked for, a thread's id) is an
argument of its own `Writer`: who has it calls that; who has not, takes what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from penstock.core.record import EndReason
from penstock.llm.events import Failure, TokenEvent
from penstock.llm.write import agui, anthropic, native, openai_chat, openai_responses, vercel
from penstock.llm.write.openai_errors import write_error as write_openai_error
from penstock.llm.write.writer import Body, Envelope, TokenWriter

WholeWriter = Callable[[Envelope, Iterable[TokenEvent], EndReason], Body]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutDialect:
    """One dialect that can be written. Its streams are `text/event-stream`.

    Attributes:
        name: as `?dialect=` spells it; where it can be read too, the name of that.
        make_writer: a new writer, for one body.
        write_error: an error in the place of a body; None where that is the server's own.
        write_whole: an answer that is not streamed; None where the dialect knows none.
        headers: what a stream's response must have beside its content type.
    """

    name: str
    make_writer: Callable[[Envelope], TokenWriter]
    write_error: Callable[[Failure], Body] | None
    write_whole: WholeWriter | None
    headers: tuple[tuple[str, str], ...] = ()


_ALL: Final = (
    OutDialect(
        name=openai_chat.DIALECT,
        make_writer=openai_chat.Writer,
        write_error=write_openai_error,
        write_whole=openai_chat.write_whole,
    ),
    OutDialect(
        name=openai_responses.DIALECT,
        make_writer=openai_responses.Writer,
        write_error=write_openai_error,
        write_whole=openai_responses.write_whole,
    ),
    OutDialect(
        name=anthropic.DIALECT,
        make_writer=anthropic.Writer,
        write_error=anthropic.write_error,
        write_whole=anthropic.write_whole,
    ),
    OutDialect(
        name=vercel.DIALECT,
        make_writer=vercel.Writer,
        write_error=vercel.write_error,
        write_whole=None,
        headers=vercel.HEADERS,
    ),
    OutDialect(
        name=agui.DIALECT,
        make_writer=agui.Writer,
        write_error=agui.write_error,
        write_whole=None,
    ),
    OutDialect(
        name=native.DIALECT,
        make_writer=native.Writer,
        write_error=None,
        write_whole=native.write_whole,
    ),
)

OUT_DIALECTS: Final[dict[str, OutDialect]] = {dialect.name: dialect for dialect in _ALL}
"""Every dialect by its name. Not to be changed."""


def find_out_dialect(name: str) -> OutDialect:
    """The dialect of this name.

    Raises:
        LookupError: there is none; the message names those there are.
    """
    dialect = OUT_DIALECTS.get(name)
    if dialect is None:
        raise LookupError(f"no dialect {name[:64]!r} to write; there are {', '.join(OUT_DIALECTS)}")
    return dialect
