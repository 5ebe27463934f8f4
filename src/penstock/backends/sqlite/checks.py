"""What a `sqlite://` file could not hold, refused before it is queued: there it would fail others.

Most of it is refused long before, by whoever takes it from the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.backends.interface import StreamConfig
from penstock.core.cursor import MAX_POSITION
from penstock.core.errors import NameMalformed, QueryMalformed, SettingInvalid
from penstock.core.producer import MAX_NUMBER, Stamp
from penstock.core.record import NewRecord


def payload_size(batch: Sequence[NewRecord]) -> int:
    return sum([len(new.payload) for new in batch])


def check_name(name: str) -> None:
    if (not name.isascii() and not is_text(name)) or "\0" in name:
        raise NameMalformed(name, "has a NUL or an unpaired surrogate")


def check_config(config: StreamConfig) -> None:
    keep = config.retention
    if max(keep.max_records, keep.max_bytes, config.ttl_s or 0) > MAX_POSITION:
        raise SettingInvalid("retention", f"has a bound above {MAX_POSITION}")
    if not is_text(config.content_type):
        raise SettingInvalid("content_type", "has an unpaired surrogate")


def check_sequence(stamp: Stamp | None, seq: str | None) -> None:
    if seq is not None and (not is_text(seq) or "\0" in seq):
        raise QueryMalformed("Stream-Seq", seq, "text")
    if stamp is not None:
        if not is_text(stamp.producer) or "\0" in stamp.producer:
            raise QueryMalformed("Producer-Id", stamp.producer, "text")
        if not 0 <= stamp.epoch <= MAX_NUMBER or not 0 <= stamp.seq <= MAX_NUMBER:
            raise QueryMalformed("Producer-Seq", str(stamp.seq), f"0 to {MAX_NUMBER}")


def is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
