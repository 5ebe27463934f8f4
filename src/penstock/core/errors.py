"""Every error of the project, drawn once.

    PenstockError
    ├── CallerError            the caller's mistake: change the call
    │   ├── NameMalformed          a stream name that cannot be one
    │   ├── OffsetMalformed        text that is no offset
    │   ├── QueryMalformed         a query parameter or header with a value it cannot have
    │   ├── RecordTypeReserved     a type that transports use themselves
    │   ├── RecordFieldMalformed   a type or key with forbidden characters
    │   ├── RecordTooLarge         a record above the stream's limit
    │   ├── BodyMalformed          a request body that is not what its type says
    │   ├── RequestMalformed       a request to a model that is none in its dialect
    │   ├── RequestInexpressible   a request that the upstream's dialect has no words for
    │   ├── ContentTypeConflict    an append of another content type than the stream's
    │   ├── StreamNotFound         no stream of that name
    │   ├── StreamExists           a running stream of that name, and the caller did not say `join`
    │   ├── StreamConflict         a create that differs from what exists
    │   ├── StreamEnded            an append to a log that is closed
    │   ├── StreamGone             a stream that was deleted while forks of it live on
    │   ├── ForkInvalid            a fork at a place its source does not have
    │   ├── SequenceConflict       an append whose `Stream-Seq` does not follow the last
    │   ├── ProducerFenced         an append of a producer's earlier epoch
    │   ├── ProducerEpochInvalid   a producer's new epoch that does not begin at 0
    │   ├── ProducerGap            an append that skips some of its producer's
    │   ├── SubscriptionNotFound   no subscription of that id
    │   ├── SubscriptionConflict   a subscription that differs from what exists
    │   ├── SubscriptionInvalid    a subscription that cannot be
    │   ├── WebhookUrlRejected     a webhook at an address this server does not call
    │   ├── WebhooksOff            a webhook where none are called
    │   ├── WakeTokenInvalid       a token that is not the subscription's
    │   ├── WakeFenced             a wake that another has replaced
    │   ├── WakeClaimed            a wake that another worker has
    │   ├── NothingPending         a claim where there is no work
    │   ├── AckInvalid             an acknowledgement of what is not there
    │   ├── ModelUnknown           a model that no upstream here serves
    │   ├── KeyRefused             an API key that is none of this server's
    │   ├── PriceUnknown           a model without a price, under a budget of money
    │   ├── IdempotencyMismatch    another request under a key that was used
    │   ├── BudgetExhausted        a budget that leaves nothing
    │   ├── RouteNotFound          no such address
    │   ├── MethodNotAllowed       the address has no such method
    │   ├── OriginRefused          an unsafe request from a page of another origin
    │   ├── HostRefused            a Host that this server does not answer to
    │   ├── OperatorOnly           an address for loopback or an operator
    │   ├── StoreForeign           a file that is not a store of ours, or of a later version
    │   └── SettingInvalid         a setting with a value it cannot have
    ├── PeerError              the other side's mistake: nothing here can repair it
    │   ├── EventTooLarge          an event above the decoder's limit
    │   ├── Refused                a server refused a request of our client
    │   ├── UpstreamError          the provider said no, or broke its own dialect
    │   ├── UpstreamTruncated      the provider's body ended before its dialect's end
    │   ├── HeadersTooLarge        a request head above the limit
    │   └── HeadersTooSlow         a request head that did not arrive in time
    └── WorldError             nobody's mistake: try later, or elsewhere
        ├── OffsetGone             history no longer kept, and the reader will not skip it
        ├── AppendWindowFull       `append_nowait` found no room
        ├── StoreFull              the streams or bytes this server may keep are used up
        ├── NotSupported           something this server's backend cannot do
        ├── DiskFull               the disk under the store has no room
        ├── StoreLocked            another process has the store
        ├── StoreDamaged           a store whose file is broken
        ├── StoreFailed            the store could not be written or read
        ├── UpstreamBusy           an upstream whose slots and queue are full
        ├── Overloaded             more connections than this server takes
        ├── Draining               the server is going away
        └── Unreachable            the server could not be reached, or stopped answering

A leaf carries plain values as attributes and builds its own sentence: lower case, values quoted,
ending with what to do. Codes are listed in `spec/errors.toml`, never change and are never reused;
a test compares that file with these classes. Those of the gateway are in `gateway_errors.py`.
Errors sit below everything, so they never carry domain objects.
"""

from __future__ import annotations

from typing import ClassVar


class PenstockError(Exception):
    """The root: catch this to catch everything this package raises on purpose."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class CallerError(PenstockError):
    """The caller's mistake. Retrying the same call fails the same way."""

    code = "request-invalid"
    status = 400


class PeerError(PenstockError):
    """The other side's mistake: what arrived breaks the rules it claims to follow."""

    code = "peer-invalid"
    status = 502


class WorldError(PenstockError):
    """Nobody's mistake: a limit, a loss, a deploy. Often worth another try."""

    code = "unavailable"
    status = 503


class NameMalformed(CallerError):
    code, status = "name-malformed", 400

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"stream name {name[:200]!r} {reason}; use non-empty path segments")
        self.name, self.reason = name, reason


class OffsetMalformed(CallerError):
    code, status = "offset-malformed", 400

    def __init__(self, text: str) -> None:
        super().__init__(f"offset {text[:64]!r} is not one; use an offset the server gave, or '-1'")
        self.text = text


class QueryMalformed(CallerError):
    code, status = "query-malformed", 400

    def __init__(self, parameter: str, value: str, expected: str) -> None:
        super().__init__(f"{parameter!r} is {value[:64]!r}; expected {expected}")
        self.parameter, self.value, self.expected = parameter, value, expected


class RecordTypeReserved(CallerError):
    code, status = "record-type-reserved", 400

    def __init__(self, type: str) -> None:
        super().__init__(f"record type {type[:64]!r} is reserved for transports; choose another")
        self.type = type


class RecordFieldMalformed(CallerError):
    code, status = "record-field-malformed", 400

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"the record's {field} {reason}")
        self.field, self.reason = field, reason


class RecordTooLarge(CallerError):
    code, status = "record-too-large", 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes, and the limit is {limit}; split it")
        self.size, self.limit = size, limit


class BodyMalformed(CallerError):
    code, status = "body-malformed", 400

    def __init__(self, reason: str) -> None:
        super().__init__(f"the body {reason}")
        self.reason = reason


class RequestMalformed(CallerError):
    code, status = "request-malformed", 400

    def __init__(self, field: str, reason: str) -> None:
        place = field[:200] or "body"  # "" is the whole
        super().__init__(f"the request's {place!r} {reason[:300]}")
        self.field, self.reason = field, reason


class RequestInexpressible(CallerError):
    code, status = "request-inexpressible", 400

    def __init__(self, field: str, dialect: str) -> None:
        super().__init__(
            f"{field[:200]!r} cannot be said to an upstream that speaks {dialect[:64]!r}; "
            "leave it out"
        )
        self.field, self.dialect = field, dialect


class ContentTypeConflict(CallerError):
    code, status = "content-type-conflict", 409

    def __init__(self, given: str, stream: str) -> None:
        super().__init__(f"the body is {given[:100]!r} and the stream {stream!r}; send what it is")
        self.given, self.stream = given, stream


class StreamNotFound(CallerError):
    code, status = "stream-not-found", 404

    def __init__(self, name: str) -> None:
        super().__init__(f"no stream {name!r}; create it with PUT")
        self.name = name


class StreamExists(CallerError):
    code, status = "stream-exists", 409

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} is there already; pass join=True to read it instead")
        self.name = name


class StreamConflict(CallerError):
    code, status = "stream-conflict", 409

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"stream {name!r} exists with another {what}; use the same or another name"
        )
        self.name, self.what = name, what


class StreamEnded(CallerError):
    code, status = "stream-ended", 409

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"stream {name!r} has ended ({reason}); start another")
        self.name, self.reason = name, reason


class StreamGone(CallerError):
    code, status = "stream-gone", 410

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} was deleted, and forks of it live on; read those")
        self.name = name


class ForkInvalid(CallerError):
    code, status = "fork-invalid", 400

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"stream {source!r} cannot be forked there: {reason}")
        self.source, self.reason = source, reason


class SequenceConflict(CallerError):
    code, status = "sequence-conflict", 409

    def __init__(self, seq: str, last: str) -> None:
        super().__init__(f"sequence {seq[:64]!r} does not follow {last[:64]!r}; read what is there")
        self.seq, self.last = seq, last


class ProducerFenced(CallerError):
    code, status = "producer-fenced", 403

    def __init__(self, producer: str, epoch: int) -> None:
        super().__init__(
            f"producer {producer[:64]!r} is in epoch {epoch}; stop, or begin a later one at 0"
        )
        self.producer, self.epoch = producer, epoch


class ProducerEpochInvalid(CallerError):
    code, status = "producer-epoch-invalid", 400

    def __init__(self, producer: str, seq: int) -> None:
        super().__init__(f"producer {producer[:64]!r} begins an epoch at {seq}; begin it at 0")
        self.producer, self.seq = producer, seq


class ProducerGap(CallerError):
    code, status = "producer-gap", 409

    def __init__(self, producer: str, expected: int, received: int) -> None:
        super().__init__(
            f"producer {producer[:64]!r} sent {received} and {expected} is next; send that first"
        )
        self.producer, self.expected, self.received = producer, expected, received


class SubscriptionNotFound(CallerError):
    code, status = "subscription-not-found", 404

    def __init__(self, id: str) -> None:
        super().__init__(f"no subscription {id[:200]!r}; create it with PUT")
        self.id = id


class SubscriptionConflict(CallerError):
    code, status = "subscription-conflict", 409

    def __init__(self, id: str) -> None:
        super().__init__(
            f"subscription {id[:200]!r} exists with another configuration; delete it first"
        )
        self.id = id


class SubscriptionInvalid(CallerError):
    code, status = "subscription-invalid", 400

    def __init__(self, reason: str) -> None:
        super().__init__(f"the subscription {reason[:300]}")
        self.reason = reason


class WebhookUrlRejected(CallerError):
    code, status = "webhook-url-rejected", 400

    def __init__(self, reason: str) -> None:
        super().__init__(f"the webhook's url {reason[:300]}; use one this server may call")
        self.reason = reason


class WebhooksOff(CallerError):
    code, status = "webhooks-off", 403

    def __init__(self, reason: str) -> None:
        super().__init__(f"this server calls no webhooks: {reason[:300]}; use pull-wake")
        self.reason = reason


class WakeTokenInvalid(CallerError):
    code, status = "wake-token-invalid", 401

    def __init__(self) -> None:
        super().__init__(
            "the token is none of this subscription's; send 'Authorization: Bearer <token>'"
        )


class WakeFenced(CallerError):
    code, status = "wake-fenced", 409

    def __init__(self, generation: int) -> None:
        super().__init__(
            f"that wake is over and the newest is generation {generation}; drop its work"
        )
        self.generation = generation


class WakeClaimed(CallerError):
    code, status = "wake-claimed", 409

    def __init__(self, holder: str, generation: int) -> None:
        super().__init__(
            f"worker {holder[:200]!r} has generation {generation}; wait for the next wake"
        )
        self.holder, self.generation = holder, generation


class NothingPending(CallerError):
    code, status = "nothing-pending", 409

    def __init__(self, id: str) -> None:
        super().__init__(f"subscription {id[:200]!r} has no pending work; wait for a wake")
        self.id = id


class AckInvalid(CallerError):
    code, status = "ack-invalid", 409

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"the ack of {stream[:200]!r} {reason}; no ack of this request was taken")
        self.stream, self.reason = stream, reason


class RouteNotFound(CallerError):
    code, status = "route-not-found", 404

    def __init__(self, path: str) -> None:
        super().__init__(f"nothing is at {path[:200]!r}")
        self.path = path


class MethodNotAllowed(CallerError):
    code, status = "method-not-allowed", 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method[:20]!r} is not for this address; it takes {allowed}")
        self.method, self.allowed = method, allowed


class OriginRefused(CallerError):
    code, status = "origin-refused", 403

    def __init__(self, origin: str) -> None:
        super().__init__(f"origin {origin[:200]!r} may not do this; add it to allowed_origins")
        self.origin = origin


class HostRefused(CallerError):
    code, status = "host-refused", 403

    def __init__(self, host: str) -> None:
        super().__init__(f"this server does not answer to {host[:200]!r}; add it to allowed_hosts")
        self.host = host


class OperatorOnly(CallerError):
    code, status = "operator-only", 403

    def __init__(self, path: str) -> None:
        super().__init__(f"{path[:200]!r} is answered to this machine only")
        self.path = path


class StoreForeign(CallerError):
    code, status = "store-foreign", 400

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path[:300]!r} {reason[:300]}; it is left as it is, name another file")
        self.path, self.reason = path, reason


class SettingInvalid(CallerError):
    code, status = "setting-invalid", 400

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"setting {setting!r} {reason}")
        self.setting, self.reason = setting, reason


class EventTooLarge(PeerError):
    code, status = "event-too-large", 502

    def __init__(self, limit: int) -> None:
        super().__init__(f"an event has more than {limit} bytes; raise the decoder's limit")
        self.limit = limit


class Refused(PeerError):
    code, status = "refused", 502

    def __init__(self, url: str, answer: int, answer_code: str = "", detail: str = "") -> None:
        said = f" ({answer_code})" if answer_code else ""
        super().__init__(f"{url!r} answered {answer}{said}: {detail[:300] or 'no reason given'}")
        self.url, self.answer, self.answer_code, self.detail = url, answer, answer_code, detail


class UpstreamError(PeerError):
    code, status = "upstream-failed", 502

    def __init__(self, reason: str, upstream_status: int | None = None) -> None:
        super().__init__(f"the upstream failed: {reason[:500]}")
        self.reason, self.upstream_status = reason, upstream_status


class UpstreamTruncated(PeerError):
    code, status = "upstream-truncated", 502

    def __init__(self, dialect: str) -> None:
        super().__init__(f"the upstream's body ended before the end that {dialect!r} requires")
        self.dialect = dialect


class HeadersTooLarge(PeerError):
    code, status = "headers-too-large", 431

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request head has more than {limit} bytes; send fewer headers")
        self.limit = limit


class HeadersTooSlow(PeerError):
    code, status = "headers-too-slow", 408

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the request head took more than {limit_s:g} s; send it at once")
        self.limit_s = limit_s


class OffsetGone(WorldError):
    code, status = "offset-gone", 410

    def __init__(self, offset: str, earliest: str) -> None:
        super().__init__(f"what follows {offset!r} is no longer kept; read from {earliest!r}")
        self.offset, self.earliest = offset, earliest


class AppendWindowFull(WorldError):
    code, status = "append-window-full", 503

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(f"{limit} appends to {name!r} wait for commit already; await append()")
        self.name, self.limit = name, limit


class StoreFull(WorldError):
    code, status = "store-full", 507

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(
            f"this server keeps at most {limit} {what}; delete some or raise the limit"
        )
        self.what, self.limit = what, limit


class NotSupported(WorldError):
    code, status = "not-supported", 501

    def __init__(self, what: str) -> None:
        super().__init__(f"this server's backend cannot {what}; use one that can")
        self.what = what


class DiskFull(WorldError):
    code, status = "disk-full", 507

    def __init__(self, path: str) -> None:
        super().__init__(f"the disk under {path[:300]!r} is full; nothing was stored, make room")
        self.path = path


class StoreLocked(WorldError):
    code, status = "store-locked", 503

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path[:300]!r} is in use by another process; stop that, or name another file"
        )
        self.path = path


class StoreDamaged(WorldError):
    code, status = "store-damaged", 500

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path[:300]!r} is damaged ({reason[:300]}); it is left as it is, restore a backup"
        )
        self.path, self.reason = path, reason


class StoreFailed(WorldError):
    code, status = "store-failed", 503

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path[:300]!r} could not be used: {reason[:300]}; nothing was stored")
        self.path, self.reason = path, reason


class Overloaded(WorldError):
    code, status = "overloaded", 503

    def __init__(self, limit: int) -> None:
        super().__init__(f"this server takes at most {limit} readers; come back later")
        self.limit = limit


class Draining(WorldError):
    code, status = "draining", 503

    def __init__(self) -> None:
        super().__init__("this server is going away; come back after Retry-After")


class Unreachable(WorldError):
    code, status = "unreachable", 503

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url!r} could not be reached: {reason[:300]}")
        self.url, self.reason = url, reason
