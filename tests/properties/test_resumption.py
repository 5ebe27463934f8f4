"""Over random sequences of happenings a client stops when it must, and only then.

Also: it never waits longer than its ceiling or shorter than a `Retry-After`, it spreads its waits
over the whole of what it may wait, and it never forgets or invents a place.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.resume import RETRIABLE, Backoff, Outcome, Resumption, Verdict

draws = st.floats(0, 1, exclude_max=True)
retry_afters = st.none() | st.floats(0, 3600)
backoffs = st.builds(
    Backoff,
    base_ms=st.integers(1, 5_000),
    cap_ms=st.integers(1, 60_000),
    max_attempts=st.none() | st.integers(0, 5),
)
unbounded = st.builds(Backoff, base_ms=st.integers(1, 5_000), cap_ms=st.integers(1, 60_000))


@dataclass(frozen=True)
class Answer:
    """The server answered with a status."""

    status: int
    retry_after_s: float | None = None
    can_renew: bool = False


@dataclass(frozen=True)
class Event:
    """An event came."""

    type: str
    id: str


@dataclass(frozen=True)
class Retry:
    """The server said `retry:`."""

    ms: int


class Cut:
    """The connection broke, or its body ended without an end."""

    def __repr__(self) -> str:
        return "Cut()"


class Comment:
    """A heartbeat came."""

    def __repr__(self) -> str:
        return "Comment()"


passing = st.one_of(
    st.builds(Answer, st.integers(500, 599) | st.sampled_from(sorted(RETRIABLE)), retry_afters),
    st.builds(Answer, st.just(200)),
    st.builds(Event, st.sampled_from(["", "token", "gap", "status", "drain"]), st.text(max_size=5)),
    st.builds(Retry, st.integers(0, 100_000)),
    st.builds(Cut),
    st.builds(Comment),
)
refusals = st.integers(400, 499).filter(lambda status: status not in RETRIABLE)
final = st.one_of(
    st.builds(Answer, st.just(204), retry_afters, st.booleans()),
    st.builds(Event, st.just("end"), st.just("0000111~")),
    st.builds(Answer, refusals, retry_afters),
)
Happening = Answer | Event | Retry | Cut | Comment


def tell(client: Resumption, happening: Happening, now: float, draw: float) -> Verdict | None:
    match happening:
        case Answer(status, retry_after_s, can_renew):
            return client.receive_response(
                status, now, draw, retry_after_s=retry_after_s, can_renew=can_renew
            )
        case Event(type, id):
            return client.receive_event(type, id, now)
        case Retry(ms):
            client.receive_retry(ms)
        case Comment():
            client.receive_bytes(now)
        case Cut():
            return client.receive_cut(now, draw)
    return None


@given(unbounded, st.lists(st.tuples(passing, draws), max_size=40))
def test_nothing_that_may_pass_ever_stops_a_client(
    backoff: Backoff, happenings: list[tuple[Happening, float]]
) -> None:
    client = Resumption(backoff=backoff)
    for now, (happening, draw) in enumerate(happenings):
        assert tell(client, happening, float(now), draw) is not Verdict.STOP
        assert client.outcome is None


@given(backoffs, st.lists(st.tuples(passing, draws), max_size=20), final, draws)
def test_what_is_final_always_stops_a_client_for_good(
    backoff: Backoff, before: list[tuple[Happening, float]], last: Happening, draw: float
) -> None:
    client = Resumption(backoff=backoff)
    for now, (happening, drawn) in enumerate(before):
        tell(client, happening, float(now), drawn)
    exhausted = client.outcome is not None
    assert tell(client, last, 100.0, draw) is Verdict.STOP
    outcome = client.outcome
    assert outcome is not None
    assert (outcome is Outcome.EXHAUSTED) == exhausted
    # Whatever still arrives from the connection it leaves behind changes nothing.
    for now, (happening, drawn) in enumerate(before):
        assert tell(client, happening, 200.0 + now, drawn) in (Verdict.STOP, None)
        assert (client.outcome, client.next_deadline()) == (outcome, None)


@given(backoffs, st.lists(st.tuples(passing, draws), max_size=40))
def test_a_wait_lies_between_its_floor_and_its_ceiling(
    backoff: Backoff, happenings: list[tuple[Happening, float]]
) -> None:
    client = Resumption(backoff=backoff)
    now = 0.0
    for happening, draw in happenings:
        now += 1.0
        if tell(client, happening, now, draw) is not Verdict.CONNECT:
            continue
        deadline = client.next_deadline()
        assert deadline is not None
        retry_after_s = (happening.retry_after_s if isinstance(happening, Answer) else None) or 0.0
        longest_s = max(backoff.cap_ms, client.retry_ms or 0) / 1000
        shortest_s = (client.retry_ms or 0) / 2000
        assert now + max(retry_after_s, shortest_s) <= deadline
        assert deadline <= now + max(retry_after_s, longest_s)


@given(unbounded, st.integers(0, 100), draws, draws)
def test_the_jitter_is_full(backoff: Backoff, attempt: int, one: float, other: float) -> None:
    """A wait is proportional to its draw: from nothing to the ceiling, evenly."""
    ceiling = min(backoff.cap_ms, backoff.base_ms * 2 ** min(attempt, 20))
    assert backoff.delay_ms(attempt, None, 0.0) == 0.0
    assert abs(backoff.delay_ms(attempt, None, one) - one * ceiling) <= 1e-6 * ceiling
    assert (one < other) <= (
        backoff.delay_ms(attempt, None, one) <= backoff.delay_ms(attempt, None, other)
    )


@given(unbounded, st.integers(0, 60), st.none() | st.integers(0, 100_000), draws)
def test_a_later_try_never_waits_less_for_the_same_draw(
    backoff: Backoff, attempt: int, retry_ms: int | None, draw: float
) -> None:
    earlier = backoff.delay_ms(attempt, retry_ms, draw)
    assert earlier <= backoff.delay_ms(attempt + 1, retry_ms, draw)


@given(st.integers(0, 6), st.lists(st.tuples(passing, draws), max_size=40))
def test_a_client_gives_up_after_exactly_the_tries_it_was_given(
    limit: int, happenings: list[tuple[Happening, float]]
) -> None:
    client = Resumption(backoff=Backoff(max_attempts=limit))
    tries = 0
    for now, (happening, draw) in enumerate(happenings):
        verdict = tell(client, happening, float(now), draw)
        if isinstance(happening, Event):
            tries = 0
        if verdict is Verdict.CONNECT:
            tries += 1
            assert tries <= limit
        if verdict is Verdict.STOP:
            assert tries == limit
            assert client.outcome is Outcome.EXHAUSTED
            return


@given(st.text(max_size=5), st.lists(st.tuples(passing, draws), max_size=40))
def test_the_place_is_always_the_last_events(
    begin: str, happenings: list[tuple[Happening, float]]
) -> None:
    client = Resumption(last_event_id=begin)
    for now, (happening, draw) in enumerate(happenings):
        tell(client, happening, float(now), draw)
        if isinstance(happening, Event):
            begin = happening.id
        assert client.last_event_id == begin


@given(st.lists(st.tuples(passing, draws, st.floats(0, 100)), max_size=40))
def test_a_deadline_is_never_in_the_past_of_what_set_it(
    happenings: list[tuple[Happening, float, float]],
) -> None:
    client = Resumption()
    now = 0.0
    for happening, draw, elapsed in happenings:
        now += elapsed
        tell(client, happening, now, draw)
        deadline = client.next_deadline()
        if not isinstance(happening, Retry):
            assert deadline is not None
            assert deadline >= now
        assert client.expire(now) == (deadline is not None and deadline <= now)
