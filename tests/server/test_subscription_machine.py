"""The rules of waking: one wake at a time, fenced by generations, leased, retried, never lost.

Against the machine alone, with a clock that is moved by hand; then random walks that hold its laws.
"""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import pytest

from penstock.core.cursor import Offset
from penstock.core.errors import (
    AckInvalid,
    NothingPending,
    PenstockError,
    StoreFull,
    SubscriptionConflict,
    SubscriptionInvalid,
    SubscriptionNotFound,
    WakeClaimed,
    WakeFenced,
    WakeTokenInvalid,
)
from penstock.core.limits import ANNOUNCE_S, WAKE_STREAMS, WEBHOOK_RETRY_CAP_S
from penstock.core.log import Head
from penstock.server.subscriptions import following
from penstock.server.subscriptions.documents import encode_cursor, encode_subscription, restore
from penstock.server.subscriptions.machine import Ack, Announcement, Answer, Machine
from penstock.server.subscriptions.model import Config, Kind, Subscription

KEY = b"k" * 32


def head(position: int, epoch: int = 1, records: int | None = None) -> Head:
    return Head(epoch, 0, position, position if records is None else records, 0)


def at(position: int, epoch: int = 1) -> str:
    return str(Offset(epoch, position))


class World:
    """A machine whose every announcement is stored at once, and a clock."""

    def __init__(self) -> None:
        ids = count(1)
        self.machine = Machine(
            new_wake_id=lambda: f"w_{next(ids)}", draw=lambda: 0.5, token_key=KEY
        )
        self.now = 100.0

    def create(self, id: str = "s", *, there: dict[str, int] | None = None, **config: Any) -> Any:
        if "type" not in config:
            config["type"] = Kind.PULL_WAKE if "wake_stream" in config else Kind.WEBHOOK
        sub, is_new = self.machine.begin_create(
            id, Config(**config), created_at="then", base_url="http://here"
        )
        if is_new:
            known = there or {}
            for name in sub.config.streams:
                tail = known.get(name)
                self.machine.following.settle(sub, name, None if tail is None else Offset(1, tail))
            for name, tail in known.items():
                self.machine.following.backfill(sub, name, Offset(1, tail))
            self.machine.finish_create(sub, self.now)
        return sub

    def store(self) -> None:
        self.machine.following.take_changes()
        self.machine.following.stored()

    def begin(self) -> Announcement | None:
        self.store()
        return self.machine.begin(self.now)

    def must_begin(self) -> Announcement:
        found = self.begin()
        assert found is not None
        return found

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.machine.expire(self.now)

    def created(self, name: str, position: int) -> None:
        self.machine.created(name, head(position), self.now)

    def appended(self, name: str, position: int) -> None:
        self.machine.appended(name, head(position), self.now)

    def answer(
        self, announcement: Announcement, *acks: tuple[str, str], done: bool = False
    ) -> bool:
        kind = announcement.subscription.config.type
        answer = Answer(
            token=announcement.token,
            wake_id=announcement.wake_id,
            generation=announcement.generation,
            acks=[Ack(*ack) for ack in acks],
            is_done=done,
        )
        return self.machine.acknowledge(announcement.subscription.id, kind, answer, self.now)


@pytest.fixture
def world() -> World:
    return World()


def webhook(world: World, **config: Any) -> Subscription:
    return world.create(**{"url": "http://127.0.0.1/", "pattern": "events/*", **config})


def pull(world: World, **config: Any) -> Subscription:
    return world.create(**{"wake_stream": "wake", "pattern": "events/*", **config})


# --- what makes work ----------------------------------------------------------------------------


def test_streams_that_are_there_are_followed_from_their_tail(world: World) -> None:
    sub = webhook(world, there={"events/a": 3, "other": 9})
    assert list(sub.links) == ["events/a"]
    assert str(sub.links["events/a"].acked) == at(3)
    assert world.begin() is None


def test_a_new_stream_is_followed_from_its_beginning(world: World) -> None:
    webhook(world)
    world.created("events/a", 2)
    announcement = world.must_begin()
    (stream,) = announcement.streams
    assert stream == ("events/a", "glob", "-1", at(2), True)
    assert announcement.cause == "events/a"


def test_a_new_stream_without_records_wakes_nobody_until_it_has_one(world: World) -> None:
    webhook(world)
    world.created("events/a", 0)
    assert world.begin() is None
    world.appended("events/a", 1)
    assert world.must_begin().streams[0].acked_offset == at(0)


def test_an_append_to_a_stream_nobody_follows_wakes_nobody(world: World) -> None:
    webhook(world)
    world.appended("other", 1)
    world.appended("events/deep/er", 1)
    assert world.begin() is None


def test_a_subscription_is_not_woken_by_its_own_wake_stream(world: World) -> None:
    pull(world, pattern="**", wake_stream="events/wake")
    world.created("events/wake", 1)
    assert world.begin() is None
    with pytest.raises(SubscriptionInvalid):
        pull(world, id="t", streams=("wake",))
    with pytest.raises(SubscriptionNotFound):
        world.machine.following.get("t")


def test_an_append_between_a_request_and_its_answer_counts_as_before_it(world: World) -> None:
    config = Config(type=Kind.WEBHOOK, url="x", pattern="events/*", streams=("a",))
    sub, _ = world.machine.begin_create("s", config, created_at="", base_url="")
    world.appended("events/b", 5)
    world.appended("a", 7)
    follow = world.machine.following
    follow.backfill(sub, "events/b", Offset(1, 4))  # what a listing saw before that
    follow.settle(sub, "a", Offset(1, 6))
    world.machine.finish_create(sub, world.now)
    assert not sub.pending
    assert str(sub.links["events/b"].acked) == at(5)
    assert str(sub.links["a"].acked) == at(7)


def test_a_stream_made_between_a_request_and_its_answer_is_new(world: World) -> None:
    config = Config(type=Kind.WEBHOOK, url="x", pattern="events/*")
    sub, _ = world.machine.begin_create("s", config, created_at="", base_url="")
    world.created("events/a", 1)
    world.machine.following.backfill(sub, "events/a", Offset(1, 1))
    assert world.begin() is None, "it is not open yet"
    world.machine.finish_create(sub, world.now)
    assert world.must_begin().cause == "events/a"


def test_a_stream_deleted_between_a_request_and_its_answer_is_not_followed(world: World) -> None:
    config = Config(type=Kind.WEBHOOK, url="x", pattern="events/*")
    sub, _ = world.machine.begin_create("s", config, created_at="", base_url="")
    world.machine.deleted("events/a")
    world.machine.following.backfill(sub, "events/a", Offset(1, 4))
    assert not sub.links


def test_a_later_epoch_is_work_whatever_its_position(world: World) -> None:
    webhook(world, there={"events/a": 9})
    world.machine.appended("events/a", head(1, epoch=2), world.now)
    assert world.must_begin().streams[0].tail_offset == at(1, epoch=2)


# --- one wake at a time -------------------------------------------------------------------------


def test_work_that_comes_during_a_wake_waits_for_the_next(world: World) -> None:
    webhook(world)
    world.created("events/a", 1)
    first = world.must_begin()
    world.machine.announced(first, world.now)
    world.appended("events/a", 2)
    assert world.begin() is None
    assert world.answer(first, ("events/a", at(1)), done=True) is True
    second = world.must_begin()
    assert (first.generation, second.generation) == (1, 2)
    assert second.wake_id != first.wake_id
    assert world.answer(second, ("events/a", at(2)), done=True) is False
    assert world.begin() is None


def test_done_in_the_answer_acknowledges_what_the_wake_told_of_and_no_more(world: World) -> None:
    sub = webhook(world)
    world.created("events/a", 1)
    announcement = world.must_begin()
    world.appended("events/a", 2)
    world.machine.announced(announcement, world.now, is_done=True)
    assert str(sub.links["events/a"].acked) == at(1)
    assert world.must_begin().generation == 2


def test_a_wake_that_is_answered_before_its_delivery_is_over_is_followed_by_one_more(
    world: World,
) -> None:
    webhook(world)
    world.created("events/a", 1)
    first = world.must_begin()
    world.appended("events/a", 2)
    assert world.answer(first, ("events/a", at(1)), done=True) is True
    assert world.begin() is None, "the first delivery is still under way"
    world.machine.announced(first, world.now, is_done=True)
    assert world.must_begin().generation == 2


def test_a_wake_names_those_with_work_first_and_no_more_than_the_limit(world: World) -> None:
    there = {f"events/{n}": 1 for n in range(WAKE_STREAMS + 5)}
    sub = webhook(world, there=there)
    world.appended(f"events/{WAKE_STREAMS + 4}", 2)
    announcement = world.must_begin()
    assert len(announcement.streams) == WAKE_STREAMS
    assert [s.has_pending for s in announcement.streams] == [True] + [False] * (WAKE_STREAMS - 1)
    assert len(sub.links) == WAKE_STREAMS + 5


def test_a_wake_is_announced_only_when_its_generation_is_stored(world: World) -> None:
    webhook(world)
    world.created("events/a", 1)
    follow = world.machine.following
    assert world.machine.begin(world.now) is None
    follow.take_changes()
    assert world.machine.begin(world.now) is None, "it is being stored"
    follow.not_stored()
    assert world.machine.begin(world.now) is None
    follow.take_changes()
    follow.stored()
    assert world.machine.begin(world.now) is not None


# --- fencing ------------------------------------------------------------------------------------


def test_what_answers_an_earlier_wake_is_fenced_and_changes_nothing(world: World) -> None:
    sub = webhook(world)
    world.created("events/a", 1)
    first = world.must_begin()
    world.machine.announced(first, world.now)
    world.answer(first, done=True)
    second = world.must_begin()
    for stale in (
        Answer(
            token=first.token, wake_id=first.wake_id, generation=1, acks=[Ack("events/a", at(1))]
        ),
        Answer(token=first.token, wake_id=second.wake_id, generation=2),
        Answer(token=second.token, wake_id=first.wake_id, generation=2),
        Answer(token=second.token, wake_id=second.wake_id, generation=1),
    ):
        with pytest.raises(WakeFenced):
            world.machine.acknowledge("s", Kind.WEBHOOK, stale, world.now)
    assert sub.links["events/a"].acked is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "1",
        "1.w_1",
        "1.w_1.",
        "-1.w_1.x",
        "1_0.w_1.x",
        "1.w_1.ü",
        "9" * 5000,
        "1.w_2.{mac}",
    ],
)
def test_a_token_that_this_server_did_not_make_is_refused(world: World, token: str) -> None:
    webhook(world)
    world.created("events/a", 1)
    announcement = world.must_begin()
    forged = token.replace("{mac}", announcement.token.rsplit(".", 1)[1])
    answer = Answer(token=forged, wake_id=announcement.wake_id, generation=1)
    with pytest.raises(WakeTokenInvalid):
        world.machine.acknowledge("s", Kind.WEBHOOK, answer, world.now)


def test_a_token_of_another_subscription_is_refused(world: World) -> None:
    webhook(world)
    webhook(world, id="t")
    world.created("events/a", 1)
    first, second = world.must_begin(), world.must_begin()
    answer = Answer(token=second.token, wake_id=first.wake_id, generation=1)
    with pytest.raises(WakeTokenInvalid):
        world.machine.acknowledge("s", Kind.WEBHOOK, answer, world.now)


def test_a_subscription_made_again_under_its_id_is_not_answered_by_old_tokens(world: World) -> None:
    webhook(world)
    world.created("events/a", 1)
    old = world.must_begin()
    assert world.machine.delete("s")
    with pytest.raises(SubscriptionNotFound):
        world.answer(old, done=True)
    webhook(world)
    world.created("events/b", 1)
    new = world.must_begin()
    assert (old.generation, new.generation) == (1, 1)
    with pytest.raises(WakeFenced):
        world.answer(old, done=True)
    world.machine.announced(old, world.now, is_done=True)  # a late delivery of the deleted one
    assert new.subscription.links["events/b"].acked is None


# --- acknowledgements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "offset"),
    [
        ("events/b", at(1)),
        ("events/a", "-1"),
        ("events/a", "now"),
        ("events/a", ""),
        ("events/a", at(4)),
        ("events/a", at(1, epoch=2)),
        ("events/a", at(1)),
        ("events/a", at(3, epoch=0)),
    ],
)
def test_one_ack_that_cannot_be_taken_takes_all_of_its_request_with_it(
    world: World, stream: str, offset: str
) -> None:
    sub = webhook(world, there={"events/a": 2, "events/c": 0})
    world.appended("events/a", 3)
    world.appended("events/c", 1)
    announcement = world.must_begin()
    with pytest.raises(AckInvalid):
        world.answer(announcement, ("events/c", at(1)), (stream, offset), done=True)
    assert str(sub.links["events/c"].acked) == at(0)
    assert sub.wake is not None


def test_acks_of_one_stream_in_one_request_do_not_go_back(world: World) -> None:
    sub = webhook(world)
    world.created("events/a", 3)
    world.answer(world.must_begin(), ("events/a", at(3)), ("events/a", at(1)))
    assert str(sub.links["events/a"].acked) == at(3)


def test_an_ack_of_what_is_acknowledged_already_is_taken(world: World) -> None:
    webhook(world)
    world.created("events/a", 3)
    announcement = world.must_begin()
    world.answer(announcement, ("events/a", at(2)))
    world.answer(announcement, ("events/a", at(2)))
    assert world.answer(announcement, ("events/a", at(3)), done=True) is False


# --- leases -------------------------------------------------------------------------------------


def test_a_lease_that_is_over_gives_the_work_to_a_new_wake(world: World) -> None:
    webhook(world, lease_ms=1000)
    world.created("events/a", 1)
    first = world.must_begin()
    world.machine.announced(first, world.now)
    world.pass_time(0.999)
    assert world.begin() is None
    world.pass_time(0.001)
    assert world.must_begin().generation == 2
    with pytest.raises(WakeFenced):
        world.answer(first, done=True)


def test_answers_without_done_renew_the_lease(world: World) -> None:
    webhook(world, lease_ms=1000)
    world.created("events/a", 1)
    first = world.must_begin()
    world.machine.announced(first, world.now)
    for _ in range(5):
        world.pass_time(0.9)
        world.answer(first)
    assert world.begin() is None
    world.pass_time(1.0)
    assert world.must_begin().generation == 2


def test_a_lease_that_is_over_without_work_leaves_no_wake(world: World) -> None:
    sub = webhook(world, lease_ms=1000)
    world.created("events/a", 1)
    first = world.must_begin()
    world.answer(first, ("events/a", at(1)))
    world.machine.announced(first, world.now)
    world.pass_time(1.0)
    assert sub.wake is None
    assert world.machine.next_deadline() is None


def test_a_delivery_that_outlasts_its_lease_ends_it_when_it_lands(world: World) -> None:
    webhook(world, lease_ms=1000)
    world.created("events/a", 1)
    first = world.must_begin()
    assert first.within_s == 1.0
    world.pass_time(5.0)
    assert world.begin() is None, "one delivery at a time"
    world.machine.announced(first, world.now)
    world.pass_time(0.0)
    assert world.must_begin().generation == 2


def test_no_delivery_may_take_longer_than_the_limit(world: World) -> None:
    webhook(world, lease_ms=600_000)
    world.created("events/a", 1)
    assert world.must_begin().within_s == ANNOUNCE_S


# --- retries ------------------------------------------------------------------------------------


def test_failed_deliveries_are_tried_again_later_and_later(world: World) -> None:
    sub = webhook(world)
    world.created("events/a", 1)
    waits: list[float] = []
    first = announcement = world.must_begin()
    for _ in range(1200):  # 2.0 ** 1100 would be an error
        world.machine.failed(announcement, world.now)
        assert sub.is_failing
        assert sub.wake is not None
        assert sub.wake.due_at is not None
        waits.append(sub.wake.due_at - world.now)
        world.pass_time(waits[-1])
        announcement = world.must_begin()
        assert (announcement.wake_id, announcement.generation) == (first.wake_id, 1)
    assert waits[:8] == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    assert max(waits) <= WEBHOOK_RETRY_CAP_S + 1e-6
    world.machine.announced(announcement, world.now)
    assert not sub.is_failing
    assert sub.retries == 0


def test_retries_are_spread_by_a_fifth() -> None:
    waits: list[float] = []
    for draw in (0.0, 1.0):
        world = World()
        world.machine = Machine(new_wake_id=lambda: "w", draw=lambda d=draw: d, token_key=KEY)
        sub = webhook(world)
        world.created("events/a", 1)
        world.machine.failed(world.must_begin(), world.now)
        assert sub.wake is not None
        assert sub.wake.due_at is not None
        waits.append(sub.wake.due_at - world.now)
    assert waits == pytest.approx([0.8, 1.2])


def test_a_receiver_that_fails_its_delivery_and_calls_back_has_the_work(world: World) -> None:
    webhook(world, lease_ms=1000)
    world.created("events/a", 1)
    first = world.must_begin()
    world.machine.failed(first, world.now)
    world.answer(first)
    world.pass_time(0.9)
    assert world.begin() is None
    assert world.answer(first, ("events/a", at(1)), done=True) is False
    world.pass_time(100)
    assert world.begin() is None


def test_a_delivery_that_was_given_up_is_made_again_at_once(world: World) -> None:
    webhook(world)
    world.created("events/a", 1)
    first = world.must_begin()
    world.machine.interrupted(first, world.now)
    again = world.must_begin()
    assert again.wake_id == first.wake_id


# --- pull-wake ----------------------------------------------------------------------------------


def test_a_wake_is_claimed_once(world: World) -> None:
    pull(world)
    with pytest.raises(NothingPending):
        world.machine.claim("s", "one", world.now)
    world.created("events/a", 1)
    announcement = world.must_begin()
    world.machine.announced(announcement, world.now)
    claimed = world.machine.claim("s", "one", world.now)
    assert (claimed.wake_id, claimed.generation) == (announcement.wake_id, 1)
    with pytest.raises(WakeClaimed) as refused:
        world.machine.claim("s", "two", world.now)
    assert (refused.value.holder, refused.value.generation) == ("one", 1)


def test_an_unclaimed_wake_has_no_lease(world: World) -> None:
    pull(world, lease_ms=1000)
    world.created("events/a", 1)
    world.machine.announced(world.must_begin(), world.now)
    assert world.machine.next_deadline() is None
    world.pass_time(10_000)
    assert world.machine.claim("s", "one", world.now).generation == 1


def test_a_wake_can_be_claimed_before_its_record_is_written(world: World) -> None:
    pull(world)
    world.created("events/a", 1)
    world.machine.claim("s", "one", world.now)
    assert world.begin() is None, "nobody has to be told any more"


def test_a_worker_that_is_silent_loses_its_wake_to_the_next(world: World) -> None:
    pull(world, lease_ms=1000)
    world.created("events/a", 1)
    world.machine.announced(world.must_begin(), world.now)
    lost = world.machine.claim("s", "one", world.now)
    world.pass_time(1.0)
    world.machine.announced(world.must_begin(), world.now)
    world.machine.claim("s", "two", world.now)
    answer = Answer(token=lost.token, wake_id=lost.wake_id, generation=lost.generation)
    with pytest.raises(WakeFenced):
        world.machine.acknowledge("s", Kind.PULL_WAKE, answer, world.now)
    with pytest.raises(WakeFenced):
        world.machine.release("s", answer, world.now)


def test_a_release_gives_the_work_to_a_new_wake(world: World) -> None:
    pull(world)
    world.created("events/a", 1)
    world.machine.announced(world.must_begin(), world.now)
    claimed = world.machine.claim("s", "one", world.now)
    answer = Answer(token=claimed.token, wake_id=claimed.wake_id, generation=1)
    world.machine.release("s", answer, world.now)
    assert world.must_begin().generation == 2


def test_a_wake_record_that_cannot_be_written_is_tried_again(world: World) -> None:
    sub = pull(world)
    world.created("events/a", 1)
    world.machine.failed(world.must_begin(), world.now)
    assert sub.is_failing
    world.pass_time(1.0)
    assert world.must_begin().generation == 1


def test_a_wake_claimed_while_its_record_fails_is_the_workers(world: World) -> None:
    sub = pull(world)
    world.created("events/a", 1)
    announcement = world.must_begin()
    world.machine.claim("s", "one", world.now)
    world.machine.failed(announcement, world.now)
    assert not sub.is_failing
    assert world.machine.next_deadline() == world.now + 30


@pytest.mark.parametrize("kind", [Kind.WEBHOOK, Kind.PULL_WAKE])
def test_each_type_has_calls_of_its_own(world: World, kind: Kind) -> None:
    (webhook if kind is Kind.PULL_WAKE else pull)(world)
    answer = Answer(token="", wake_id="", generation=1)
    with pytest.raises(SubscriptionInvalid):
        world.machine.acknowledge("s", kind, answer, world.now)
    if kind is Kind.PULL_WAKE:
        with pytest.raises(SubscriptionInvalid):
            world.machine.claim("s", "one", world.now)
        with pytest.raises(SubscriptionInvalid):
            world.machine.release("s", answer, world.now)


# --- streams that go ----------------------------------------------------------------------------


def test_a_stream_that_goes_takes_its_work_with_it(world: World) -> None:
    sub = pull(world)
    world.created("events/a", 1)
    world.machine.announced(world.must_begin(), world.now)
    world.machine.deleted("events/a")
    assert not sub.links
    with pytest.raises(NothingPending):
        world.machine.claim("s", "one", world.now)
    world.created("events/b", 1)
    assert world.must_begin().generation == 2, "the wake that nobody had is over"


def test_a_stream_made_again_is_followed_from_its_beginning(world: World) -> None:
    sub = webhook(world, streams=("own",), there={"own": 5, "events/a": 5})
    for name in ("own", "events/a"):
        world.machine.deleted(name)
    assert list(sub.links) == ["own"], "what was asked for by name is waited for"
    for name in ("own", "events/a"):
        world.machine.created(name, head(1, epoch=2), world.now)
        assert sub.links[name].acked is None
    assert world.must_begin().cause == "own"


def test_an_explicit_link_outranks_a_pattern_and_leaves_it_standing(world: World) -> None:
    sub = webhook(world, streams=("events/a", "own"), there={"events/a": 2, "own": 1})
    assert [link.is_explicit for link in sub.links.values()] == [True, True]
    for name in ("events/a", "own", "never"):
        world.machine.unfollow("s", name)
        world.machine.unfollow("s", name)
    assert list(sub.links) == ["events/a"]
    assert not sub.links["events/a"].is_explicit
    assert str(sub.links["events/a"].acked) == at(2)


# --- bounds and configurations ------------------------------------------------------------------


def test_the_same_configuration_confirms_and_another_conflicts(world: World) -> None:
    first = webhook(world)
    assert webhook(world) is first
    for other in ({"pattern": "events/**"}, {"lease_ms": 1000}, {"description": "x"}):
        with pytest.raises(SubscriptionConflict):
            webhook(world, **other)


def test_subscriptions_and_what_they_follow_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_SUBSCRIPTIONS", 2)
    monkeypatch.setattr(following, "MAX_FOLLOWED", 3)
    monkeypatch.setattr(following, "MAX_FOLLOWED_IN_ALL", 4)
    webhook(world, streams=("a", "b"))
    with pytest.raises(StoreFull):
        webhook(world, id="t", streams=("a", "b", "c"))
    with pytest.raises(SubscriptionNotFound):
        world.machine.following.get("t")
    sub = webhook(world, id="t", streams=("a",))
    with pytest.raises(StoreFull):
        webhook(world, id="u")
    for n in range(5):  # streams that come are not refused for the subscribers' sake
        world.created(f"events/{n}", 1)
    assert len(sub.links) + len(world.machine.following.get("s").links) == 4
    told = world.machine.following.overflowed
    assert len({id for id, _ in told}) == len(told), "once each"


def test_announcements_are_made_in_the_order_they_became_due(world: World) -> None:
    for id in "cab":
        webhook(world, id=id, pattern=f"{id}/*")
    for id in "bca":
        world.created(f"{id}/x", 1)
    assert [world.must_begin().subscription.id for _ in range(3)] == list("bca")


# --- laws ---------------------------------------------------------------------------------------


def copy_of(world: World, wall: float) -> World:
    """What a restart would find, had everything been stored."""
    source = world.machine.following
    subscriptions = {
        id: body
        for id in source.subscriptions
        if (body := encode_subscription(source, id, world.now, wall))
    }
    cursors = {
        f"{id}/{name}": body
        for id, sub in source.subscriptions.items()
        for name, link in sub.links.items()
        if link.is_kept and (body := encode_cursor(source, id, name))
    }
    other = World()
    other.now = 7.0
    restore(other.machine.following, subscriptions, cursors, other.now, wall)
    return other


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_work_has_a_wake_and_a_wake_can_go_on(seed: int) -> None:
    print("seed", seed)
    draw = random.Random(seed)
    world = World()
    webhook(world, id="w", lease_ms=1000)
    pull(world, id="p", lease_ms=1000, streams=("own",))
    tails: dict[str, int] = {}
    epochs: dict[str, int] = {}
    under_way: list[Announcement] = []
    answers: list[tuple[Kind, str, Answer]] = []
    acked: dict[tuple[str, str], Offset | None] = {}
    generations = {"w": 0, "p": 0}
    names = ["own", "events/a", "events/b", "other"]

    def check() -> None:
        for id, sub in world.machine.following.subscriptions.items():
            expected = {n for n, link in sub.links.items() if link.is_pending}
            assert set(sub.pending) == expected
            assert sub.is_open
            if sub.pending:
                assert sub.wake is not None, "work has a wake"
            if sub.wake is not None and not sub.announcing and sub.wake.deadline is not None:
                soonest = world.machine.next_deadline()
                is_due = id in world.machine._due
                assert is_due or (soonest is not None and soonest <= sub.wake.deadline)
            assert sub.generation >= generations[id]
            generations[id] = sub.generation
            for name, link in sub.links.items():
                before = acked.get((id, name))
                assert before is None or link.acked is None or link.acked >= before
                acked[id, name] = link.acked

    for _ in range(400):
        match draw.randrange(11):
            case 0 | 1:
                name = draw.choice(names)
                if name not in tails:
                    tails[name] = draw.randrange(3)
                    epochs[name] = epochs.get(name, 0) + 1
                    new = head(tails[name], epochs[name])
                    for key in [key for key in acked if key[1] == name]:
                        del acked[key]
                    world.machine.created(name, new, world.now)
                else:
                    tails[name] += 1
                    new = head(tails[name], epochs[name])
                    world.machine.appended(name, new, world.now)
            case 2:
                name = draw.choice(names)
                if name in tails:
                    del tails[name]
                    for key in [key for key in acked if key[1] == name]:
                        del acked[key]
                    world.machine.deleted(name)
            case 3 | 4:
                announcement = world.begin()
                if announcement is not None:
                    under_way.append(announcement)
                    sub = announcement.subscription
                    if sub.config.type is Kind.WEBHOOK:
                        said = Answer(
                            token=announcement.token,
                            wake_id=announcement.wake_id,
                            generation=announcement.generation,
                            is_done=draw.random() < 0.5,
                            acks=[Ack(s.path, s.tail_offset) for s in announcement.streams],
                        )
                        answers.append((Kind.WEBHOOK, sub.id, said))
            case 5 | 6:
                if under_way:
                    landed = under_way.pop(draw.randrange(len(under_way)))
                    match draw.randrange(4):
                        case 0:
                            world.machine.failed(landed, world.now)
                        case 1:
                            world.machine.interrupted(landed, world.now)
                        case _:
                            world.machine.announced(landed, world.now, is_done=draw.random() < 0.3)
            case 7:
                try:
                    claimed = world.machine.claim("p", "worker", world.now)
                except PenstockError:
                    continue
                said = Answer(
                    token=claimed.token,
                    wake_id=claimed.wake_id,
                    generation=claimed.generation,
                    is_done=draw.random() < 0.5,
                    acks=[Ack(s.path, s.tail_offset) for s in claimed.streams],
                )
                answers.append((Kind.PULL_WAKE, "p", said))
            case 8:
                if answers:
                    kind, id, said = draw.choice(answers)
                    try:
                        world.machine.acknowledge(id, kind, said, world.now)
                    except (WakeFenced, AckInvalid):
                        continue
            case 9:
                world.pass_time(draw.random() * 3)
            case _:
                other = copy_of(world, 1e9)
                for name, tail in tails.items():
                    other.machine.following.found(name, head(tail, epochs[name]))
                other.machine.following.forget_lost()
                other.machine.resume(other.now)
                for id, sub in world.machine.following.subscriptions.items():
                    twin = other.machine.following.get(id)
                    assert set(twin.pending) == set(sub.pending)
                    assert twin.generation >= sub.generation
                    assert set(twin.links) == set(sub.links)
        check()

    # Left alone with receivers that work, everything is done in the end.
    for landed in under_way:
        world.machine.announced(landed, world.now)
    for _ in range(200):
        world.pass_time(2.0)
        while (announcement := world.begin()) is not None:
            world.machine.announced(announcement, world.now, is_done=True)
        if world.machine.following.get("p").pending:
            try:
                claimed = world.machine.claim("p", "worker", world.now)
            except WakeClaimed:
                continue
            acks = [Ack(s.path, s.tail_offset) for s in claimed.streams if s.has_pending]
            said = Answer(
                token=claimed.token,
                wake_id=claimed.wake_id,
                generation=claimed.generation,
                acks=acks,
                is_done=True,
            )
            world.machine.acknowledge("p", Kind.PULL_WAKE, said, world.now)
    subs = world.machine.following.subscriptions.values()
    assert not any(sub.pending for sub in subs)


def test_a_subscription_survives_a_restart_as_it_was(world: World) -> None:
    pull(world, lease_ms=1000, there={"events/a": 2})
    world.appended("events/a", 3)
    world.machine.announced(world.must_begin(), world.now)
    claimed = world.machine.claim("s", "one", world.now)
    world.pass_time(0.4)
    other = copy_of(world, wall=5e8)
    other.machine.following.found("events/a", head(4))
    other.machine.following.found("events/new", head(1))
    other.machine.resume(other.now)
    sub = other.machine.following.get("s")
    assert {name: str(link.acked) for name, link in sub.links.items()} == {
        "events/a": at(2),
        "events/new": "None",
    }
    with pytest.raises(WakeClaimed):
        other.machine.claim("s", "two", other.now)
    answer = Answer(token=claimed.token, wake_id=claimed.wake_id, generation=1)
    assert other.machine.acknowledge("s", Kind.PULL_WAKE, answer, other.now) is False
    other.pass_time(1.0)
    assert other.must_begin().generation == 2


def test_a_clock_that_was_set_back_holds_no_lease_for_longer_than_it_is(world: World) -> None:
    pull(world, lease_ms=1000)
    world.created("events/a", 1)
    world.machine.claim("s", "one", world.now)
    source = world.machine.following
    body = encode_subscription(source, "s", world.now, 5e8)
    assert body is not None
    other = World()
    restore(other.machine.following, {"s": body}, {}, other.now, 4e8)
    other.machine.following.found("events/a", head(1))
    other.machine.resume(other.now)
    other.pass_time(1.0)
    assert other.must_begin().generation == 2


def test_a_delivery_under_way_at_a_crash_is_made_again(world: World) -> None:
    webhook(world)
    world.created("events/a", 1)
    first = world.must_begin()
    other = copy_of(world, wall=5e8)
    other.machine.following.found("events/a", head(1))
    other.machine.resume(other.now)
    again = other.must_begin()
    assert (again.wake_id, again.token) == (first.wake_id, first.token)
