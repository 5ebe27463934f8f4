"""Creating streams: when two creates agree, and what a fork takes from its source.

The same for every backend, which finds out for itself what is there and then asks here.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.backends.interface import Fork, StreamConfig
from penstock.core.errors import ForkInvalid, OffsetGone, StreamConflict
from penstock.core.log import Head


def fork_position(fork: Fork, head: Head) -> int:
    """Find the position a fork leaves its source at. Raises ForkInvalid, OffsetGone."""
    at = fork.at
    if at is None:
        return head.tail
    if at.epoch != head.epoch or at.position > head.tail:
        raise ForkInvalid(fork.source, f"it has no offset {str(at)!r}")
    if at.position < head.earliest:
        raise OffsetGone(str(at), str(head.earliest_offset))
    return at.position


def forked_config(fork: Fork, asked: StreamConfig, source: StreamConfig) -> StreamConfig:
    """Fill in what a fork takes from its source. Raises StreamConflict for another type."""
    content_type = asked.content_type or source.content_type
    if content_type != source.content_type:
        raise StreamConflict(fork.source, "content type")
    config = replace(asked, content_type=content_type, fork=fork)
    if asked.ttl_s is None and asked.expires_at is None:
        return replace(config, ttl_s=source.ttl_s, expires_at=source.expires_at)
    return config


def refuse_conflict(name: str, there: StreamConfig, asked: StreamConfig) -> None:
    """Refuse a create that differs from what exists. Raises StreamConflict."""
    if there.content_type != asked.content_type:
        raise StreamConflict(name, "content type")
    if (there.ttl_s, there.expires_at) != (asked.ttl_s, asked.expires_at):
        raise StreamConflict(name, "expiry")
    if there.retention != asked.retention:
        raise StreamConflict(name, "retention")
    if not _forks_agree(there.fork, asked.fork):
        raise StreamConflict(name, "source")


def _forks_agree(there: Fork | None, asked: Fork | None) -> bool:
    """Whether a create names the same fork: a place it leaves open is the one taken then."""
    if there is None or asked is None:
        return there is asked
    if asked.at is not None and asked.at != there.at:
        return False
    return (there.source, there.sub) == (asked.source, asked.sub)
