"""Calls webhooks: one POST, one answer, and nothing else of what HTTP offers.

No redirect is followed, no proxy of the environment asked, no cookie kept, no connection used
twice; the answer is read up to a bound and not decompressed, and all of it has one deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import aiohttp
import msgspec

from penstock.core.errors import PenstockError
from penstock.core.limits import ANSWER_BYTES
from penstock.server.subscriptions.addresses import WebhookRules
from penstock.server.subscriptions.signing import SigningKey

# `identity`: a body that was packed could unpack to more than the bound.
_HEADERS: Final = {
    "content-type": "application/json",
    "accept": "application/json",
    "accept-encoding": "identity",
    "user-agent": "penstock",
}


class Delivery(NamedTuple):
    """What came of a call. `why` says what went wrong, without the address's path and query:
    those can be a secret."""

    is_delivered: bool
    is_done: bool = False
    why: str = ""


class _Body(msgspec.Struct):
    done: bool = False


async def call_webhook(
    rules: WebhookRules,
    url: str,
    body: bytes,
    *,
    key: SigningKey,
    wall_clock: Callable[[], float],
    within_s: float,
) -> Delivery:
    """Post a body to a webhook. Whatever goes wrong is in the result; only cancelling raises."""
    try:
        target = rules.check(url)
        connector = aiohttp.TCPConnector(
            socket_factory=partial(rules.open_socket, target), force_close=True, limit=1
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=within_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.post(
                target,
                data=body,
                headers={**_HEADERS, "webhook-signature": key.sign(body, int(wall_clock()))},
                allow_redirects=False,
            ) as response,
        ):
            if not 200 <= response.status < 300:
                return Delivery(False, why=f"it answered {response.status}")
            return Delivery(True, _is_done(await _read(response)))
    except TimeoutError:
        return Delivery(False, why=f"it did not answer within {within_s:g} s")
    except PenstockError as error:
        return Delivery(False, why=error.sentence)
    # A name that cannot be encoded is a UnicodeError, other bad addresses ValueErrors.
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Delivery(False, why=f"it could not be reached: {type(error).__name__}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body. One that is too long, or ends in the middle, says nothing: the wake was
    delivered all the same, as its status said."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES:
                return b""
    except (aiohttp.ClientError, TimeoutError):
        return b""
    return b"".join(parts)


def _is_done(answer: bytes) -> bool:
    """Whether an answer says that the work is done. What says nothing else says it is not."""
    try:
        return msgspec.json.decode(answer, type=_Body).done
    except msgspec.MsgspecError:
        return False
