"""The vendors' own SDKs, unmodified, read what is written as what was read.

`openai` and `anthropic` for Python in their newest versions and the major ones before, `openai`,
`@anthropic-ai/sdk`, `ai` in three major versions and `@ag-ui/client` for JavaScript: every recorded
provider stream, in every dialect they speak, and answers that ended in every other way. What runs
is in `llm_sdks/`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from interop.llm_sdks.clients import CLIENTS, PROGRAMS, Client, as_shown, ask, running, show
from interop.llm_sdks.matrix import cells
from llm.matrix import table, write
from llm.plain_clients import ENVELOPE, Shown, expected
from llm.writing import CASES, FAILURE, START
from penstock.core.record import EndReason
from penstock.llm.events import Failure, Text
from penstock.llm.write.dialects import find_out_dialect
from penstock.llm.write.writer import HEARTBEAT
from penstock.testing.recordings import find_directory
from running_programs import Program

MISSING = "no recordings here: set PENSTOCK_RECORDINGS to a folder of <dialect>.jsonl.gz files"
# A program is started once: to import the SDKs takes longer than most of what is asked of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")
EVERY_PROGRAM = pytest.mark.parametrize("started", PROGRAMS, indirect=True, scope="module")

# What an SDK raises for a status, by language: each has a class for these.
CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    502: "InternalServerError",
}


class Started(NamedTuple):
    """A program that runs, and its name."""

    name: str
    program: Program

    @property
    def clients(self) -> list[Client]:
        return [client for client in CLIENTS if client.program == self.name]

    async def show(self, client: Client, body: bytes, **more: object) -> Shown:
        return await show(self.program, client, body, **more)

    async def ask(self, client: Client, body: bytes, **more: object) -> Any:
        return await ask(self.program, client, body, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(request: pytest.FixtureRequest) -> AsyncGenerator[Started]:
    async with running(request.param) as program:
        yield Started(request.param, program)


@pytest.mark.slow
@EVERY_PROGRAM
async def test_every_recording_is_shown_as_it_was_read(started: Started) -> None:
    if find_directory() is None:
        pytest.skip(MISSING)
    found = await cells(started.name, started.program)
    print(f"\n{table(found)}")
    assert [cell.wrong[:2] for cell in found] == [()] * len(found)


@EVERY_PROGRAM
async def test_every_end_is_shown_as_what_it_is(started: Started) -> None:
    """Each hand-made answer, whole, cut, cancelled, lost and failed; its events of their types."""
    for client in started.clients:
        for title, case in CASES.items():
            body = write(client.dialect, case.events, case.reason)
            shown = await started.show(client, body, validate=started.name == "newest")
            wanted = expected(case.answer, client.dialect, case.end)
            if client.dialect not in ("vercel", "agui") and wanted.end == "cancelled":
                wanted = wanted._replace(end="failed")  # they have no other word for it
            if case.is_call_cut and client.gives_values:
                # Half an input is shown as far as the SDK can guess it.
                assert len(shown.calls) <= 1
                shown, wanted = shown._replace(calls=()), wanted._replace(calls=())
            assert shown == as_shown(wanted, client), f"{client.name}: {title}"


@pytest.mark.parametrize("started", ["newest", "previous"], indirect=True, scope="module")
async def test_a_whole_answer_is_shown_as_what_it_is(started: Started) -> None:
    for client in started.clients:
        write_whole = find_out_dialect(client.dialect).write_whole
        assert write_whole is not None
        for title, case in CASES.items():
            body = write_whole(ENVELOPE, case.events, case.reason)
            if body.status != 200:
                raised = await started.ask(client, body.data, kind="whole", status=body.status)
                assert raised["status"] == body.status, f"{client.name}: {title}"
            elif not case.is_call_cut:
                shown = await started.show(client, body.data, kind="whole")
                wanted = expected(case.answer, client.dialect, case.end)
                if case.reason == EndReason.CANCELLED:
                    wanted = wanted._replace(end="failed")
                assert shown == as_shown(wanted, client), f"{client.name}: {title}"


@EVERY_PROGRAM
async def test_an_error_is_raised_as_the_class_it_is(started: Started) -> None:
    for client in started.clients:
        write_error = find_out_dialect(client.dialect).write_error
        assert write_error is not None
        for status, kind in CLASSES.items():
            failure = Failure(message="a reason to read", code="some_code", status=status)
            body = write_error(failure)
            more = {"kind": "whole", "type": body.media_type}
            said = await started.ask(client, body.data, status=body.status, **more)
            assert "a reason to read" in (said.get("message") or said["failed"])
            if client.dialect not in ("vercel", "agui"):  # whose clients know one class alone
                assert (said["raised"], said["status"]) == (kind, status)


@EVERY_PROGRAM
async def test_an_error_in_mid_stream_brings_its_words(started: Started) -> None:
    """The SDK raises, or shows it as its page does, with the provider's sentence."""
    for client in started.clients:
        body = write(client.dialect, (START, Text(text="Once"), FAILURE), EndReason.FAILED)
        said = await started.ask(client, body)
        assert said["text"] == "Once"
        assert FAILURE.message in json.dumps(said), client.name


@EVERY_PROGRAM
async def test_heartbeats_are_not_seen(started: Started) -> None:
    """Before the first event, for as long as a model thinks, and between any two."""
    for client in started.clients:
        for title in ("parallel calls", "failed", "text"):
            case = CASES[title]
            body = write(client.dialect, case.events, case.reason)
            blocks = body.split(b"\n\n")[:-1]
            beating = b"".join(HEARTBEAT * 3 + block + b"\n\n" for block in blocks)
            assert await started.ask(client, beating) == await started.ask(client, body)
