"""What the crash test's writers write: each record says whose it is and which, and is made of
nothing but that, so that whoever finds one can tell what it must be, byte by byte.
"""

from __future__ import annotations

import re
from binascii import crc32

JSON = "application/json"
TEXT = "text/plain"
BINARY = "application/octet-stream"
_HEAD = re.compile(rb'\{"w":"([^"]+)","n":(\d+)')


def payload(writer: str, number: int, content_type: str) -> bytes:
    """The record `number` of a writer. Most are as long as a token's event, one in 97 is 9 KB."""
    seed = crc32(f"{writer}/{number}".encode())
    length = 9_000 if seed % 97 == 0 else seed % 300
    head = f'{{"w":"{writer}","n":{number}'.encode()
    if content_type == JSON:
        return head + b',"pad":"%b"}' % (b"%08x" % seed * (length // 8))
    if content_type == TEXT:
        return head + b"}\n" + "ü : x\n".encode() * (length // 7)
    return head + b"}" + bytes(range(256)) * (length // 256 + 1)


def origin(record: bytes) -> tuple[str, int] | None:
    """Whose record this is, and which; None: it is none of ours."""
    found = _HEAD.match(record)
    return None if found is None else (found[1].decode(), int(found[2]))


def body(payloads: list[bytes], content_type: str) -> bytes:
    """Records as a reader of the protocol gets them."""
    return b"[" + b",".join(payloads) + b"]" if content_type == JSON else b"".join(payloads)
