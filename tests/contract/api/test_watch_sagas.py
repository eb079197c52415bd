"""WatchSagas: every transition that a filter selects, each saga's in order, none missing, none twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant, failure
from support.server import Server, chain, eventually, refused, running_server

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad_server.api.resume_token import read_resume_token, resume_token
from sagad_server.api.watch_sagas import WatchSagas
from sagad_server.storage.journal import Cursor
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.store import SagaFilter, Store

RUNNING, COMPENSATING, PARKED = (
    saga_pb2.SAGA_STATE_RUNNING,
    saga_pb2.SAGA_STATE_COMPENSATING,
    saga_pb2.SAGA_STATE_PARKED,
)
SUCCEEDED, COMPENSATED = saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge", "ship"))


class Stream:
    """A watch that has begun."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.token = ""

    async def next(self) -> pb.WatchSagasResponse:
        """The next message that is no heartbeat."""
        while True:
            message: pb.WatchSagasResponse = await self.call.read()
            assert message is not grpc.aio.EOF
            assert message.resume_token
            self.token = message.resume_token
            if message.HasField("event"):
                return message

    async def take(self, count: int) -> list[saga_pb2.SagaEvent]:
        return [(await self.next()).event for _ in range(count)]

    async def until(self, saga_id: str, revision: int) -> None:
        """Reads up to this event."""
        while (event := (await self.next()).event) and (event.saga_id, event.revision) != (saga_id, revision):
            pass

    async def until_heartbeat(self) -> list[saga_pb2.SagaEvent]:
        """Of a watch that was resumed: what there was to read when it began."""
        events = []
        while (message := await self.call.read()).HasField("event"):
            events.append(message.event)
        return events


async def watching(server: Server, resume_token: str = "", namespace: str = "", **selection: Any) -> Stream:
    """A watch, once it has told that it begins."""
    request = pb.WatchSagasRequest(
        namespace=namespace, filter=saga_pb2.SagaFilter(**selection), resume_token=resume_token
    )
    stream = Stream(server.sagas.WatchSagas(request))
    if not resume_token:
        first = await stream.call.read()
        assert first.HasField("heartbeat")
        stream.token = first.resume_token
    return stream


async def journal(server: Server, saga_id: str, **fields: Any) -> list[saga_pb2.SagaEvent]:
    request = pb.ListSagaEventsRequest(saga_id=saga_id, page_size=1000, **fields)
    return list((await server.sagas.ListSagaEvents(request)).events)


async def undone(server: Server, saga_id: str, **fields: Any) -> saga_pb2.Saga:
    server.participant.script("do_ship", failure())
    return await server.start(saga_id=saga_id, wait=True, **fields)


async def parked(server: Server, saga_id: str, **fields: Any) -> saga_pb2.Saga:
    server.participant.script("do_charge", failure())
    server.participant.script("undo_reserve", failure())
    saga = await server.start(saga_id=saga_id, wait=True, **fields)
    assert saga.state == PARKED
    return saga


def numbers(events: list[saga_pb2.SagaEvent]) -> list[tuple[str, int]]:
    return [(event.saga_id, event.revision) for event in events]


async def test_a_watch_begins_now_and_brings_the_events_of_all_sagas(server: Server) -> None:
    await server.start(saga_id="before", wait=True)
    stream = await watching(server)
    await server.start(saga_id="s1", wait=True)
    await undone(server, "s2")
    first, second = await journal(server, "s1"), await journal(server, "s2")
    events = [event for event in await stream.take(len(first) + len(second)) if event.saga_id != "before"]
    events += await stream.take(len(first) + len(second) - len(events))
    assert events == [*first, *second]


async def test_a_message_has_the_facts_of_its_saga(server: Server) -> None:
    stream = await watching(server)
    saga = await server.start(saga_id="s1", labels={"region": "north"}, wait=True)
    for _ in range(4):
        message = await stream.next()
        assert dict(message.labels) == {"region": "north"}
        assert message.create_time == saga.create_time


async def test_a_watch_goes_on_behind_any_of_its_messages(server: Server) -> None:
    stream = await watching(server)
    tokens = [stream.token]
    await server.start(saga_id="s1", wait=True)
    await undone(server, "s2")
    events = [*await journal(server, "s1"), *await journal(server, "s2")]
    for event in events:
        assert (await stream.next()).event == event
        tokens.append(stream.token)
    stream.call.cancel()
    for number, token in enumerate(tokens[:-1]):
        again = await watching(server, token)
        assert await again.take(len(events) - number) == events[number:]
        again.call.cancel()


async def test_a_token_may_be_given_with_another_filter(server: Server) -> None:
    stream = await watching(server, definition_id="other")
    await server.start(saga_id="s1", wait=True)
    again = await watching(server, stream.token, states=[SUCCEEDED])
    assert numbers(await again.take(1)) == [("s1", 4)]


async def test_watches_that_begin_and_resume_at_any_moment_see_every_transition_once(server: Server) -> None:
    sagas = [f"many-{n}" for n in range(30)]
    wanted = sorted((saga, revision) for saga in sagas for revision in range(1, 5))
    tokens = [(await watching(server)).token]

    async def follow(breaks_after: int) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        token = tokens[0]
        while len(seen) < len(wanted):
            stream = await watching(server, token)
            seen += numbers(await stream.take(min(breaks_after, len(wanted) - len(seen))))
            token = stream.token
            stream.call.cancel()
        return seen

    followers = [asyncio.create_task(follow(breaks_after)) for breaks_after in (7, 50, 1_000)]
    await asyncio.gather(*(server.start(saga_id=saga, wait=True) for saga in sagas))
    first, *others = [await follower for follower in followers]
    assert sorted(first) == wanted
    assert all(other == first for other in others)
    for saga in sagas:
        assert [revision for saga_id, revision in first if saga_id == saga] == [1, 2, 3, 4]


async def test_a_filter_is_held_against_each_saga_as_the_transition_left_it(server: Server) -> None:
    await server.create(chain("reserve", version="2.0.0"))
    await server.create(chain("reserve"), "other")
    stream = await watching(server)
    beginning = stream.token
    await server.start(saga_id="north", labels={"region": "north", "tier": "gold"}, version="1.0.0", wait=True)
    await undone(server, "undone", version="1.0.0", labels={"region": "south"})
    await parked(server, "parked", version="1.0.0")
    await server.start(saga_id="new", wait=True)
    await server.start(saga_id="elsewhere", namespace="other", wait=True)
    await server.start(saga_id="last", version="2.0.0", wait=True)
    await stream.until("last", 2)
    journals = {name: await journal(server, name) for name in ("north", "undone", "parked", "new", "last")}
    everything = [event for events in journals.values() for event in events]
    turn = next(event.revision for event in journals["undone"] if event.HasField("failure"))
    times = {name: events[0].time for name, events in journals.items()}

    async def seen(namespace: str = "", **selection: Any) -> list[tuple[str, int]]:
        again = await watching(server, beginning, namespace, **selection)
        events = await again.until_heartbeat()
        again.call.cancel()
        return numbers(events)

    def of(*names: str) -> list[tuple[str, int]]:
        return numbers([event for event in everything if event.saga_id in names])

    def left(*states: saga_pb2.SagaState.ValueType) -> list[tuple[str, int]]:
        return numbers([event for event in everything if event.state in states])

    assert await seen() == numbers(everything)
    assert await seen("other") == [("elsewhere", 1), ("elsewhere", 2)]
    assert await seen(states=[SUCCEEDED]) == left(SUCCEEDED) == [("north", 4), ("new", 2), ("last", 2)]
    assert await seen(states=[COMPENSATING, PARKED]) == left(COMPENSATING, PARKED)
    assert await seen(version="1.0.0") == of("north", "undone", "parked")
    assert await seen(definition_id="order") == numbers(everything)
    assert await seen(definition_id="other") == []
    assert await seen(labels={"region": "north"}) == of("north")
    assert await seen(labels={"region": "north", "tier": "silver"}) == []
    assert await seen(create_time_min=times["parked"]) == of("parked", "new", "last")
    assert await seen(create_time_min=times["undone"], create_time_max=times["parked"]) == of("undone")
    south, business = {"region": "south"}, [common_pb2.FAILURE_CATEGORY_BUSINESS]
    assert await seen(categories=business, labels=south) == [each for each in of("undone") if each[1] >= turn]
    assert await seen(parking_reasons=[saga_pb2.PARKING_REASON_COMPENSATION_REFUSED]) == of("parked")[-1:]
    assert await seen(parking_reasons=[saga_pb2.PARKING_REASON_STEP_REFUSED]) == []
    assert await seen(states=[COMPENSATED], labels=south) == of("undone")[-1:]


async def test_a_filter_by_end_time_selects_what_left_a_saga_ended(server: Server) -> None:
    stream = await watching(server)
    beginning = stream.token
    await server.start(saga_id="s1", wait=True)
    await server.start(saga_id="s2", wait=True)
    await server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id="s1"))
    await server.settled("s1")
    first, second = await journal(server, "s1"), await journal(server, "s2")
    await stream.until("s1", first[-1].revision)

    async def seen(**selection: Any) -> list[tuple[str, int]]:
        again = await watching(server, beginning, **selection)
        events = await again.until_heartbeat()
        again.call.cancel()
        return numbers(events)

    ends = [("s1", 4), ("s2", 4), ("s1", first[-1].revision)]
    assert await seen(end_time_min=first[3].time) == ends
    assert await seen(end_time_min=first[3].time, end_time_max=second[3].time) == ends[:1]
    assert await seen(end_time_max=first[-1].time) == ends[:2]
    assert await seen(end_time_min=first[-1].time) == ends[2:]


async def test_heartbeats_bring_tokens_that_go_on_with_the_journal(server: Server) -> None:
    everything = await watching(server)
    told: asyncio.Queue[pb.WatchSagasResponse] = asyncio.Queue()
    running = asyncio.create_task(
        watch(server, told.put, SagaFilter(definition_id="other"), heartbeat_s=0.01).run(None)
    )
    await server.start(saga_id="s1", wait=True)
    await everything.until("s1", 4)
    while (message := await told.get()).resume_token != everything.token:
        assert message.HasField("heartbeat")
    running.cancel()
    again = await watching(server, message.resume_token)
    assert await again.until_heartbeat() == []


@pytest.mark.parametrize("token", ["x", "eA==", "AAAA" * 4, "\N{SNOWMAN}"])
async def test_a_token_that_nobody_has_sent_is_invalid(server: Server, token: str) -> None:
    refusal = await refused(server.sagas.WatchSagas(pb.WatchSagasRequest(resume_token=token)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"resume_token"}


async def test_a_wrong_filter_is_invalid_with_every_fault(server: Server) -> None:
    request = pb.WatchSagasRequest(
        namespace="No", filter=saga_pb2.SagaFilter(states=[99], version="x"), resume_token="x" * 5_000
    )
    refusal = await refused(server.sagas.WatchSagas(request))
    assert set(refusal.violations) == {"namespace", "filter.states[0]", "filter.version", "resume_token"}


async def test_a_token_of_before_what_was_purged_is_out_of_range(server: Server) -> None:
    stream = await watching(server)
    old = stream.token
    await server.start(saga_id="s1", wait=True)
    await stream.take(4)
    await server.admin.PurgeSagas(PurgeSagasRequest())
    refusal = await refused(server.sagas.WatchSagas(pb.WatchSagasRequest(resume_token=old)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "JOURNAL_PURGED")
    elsewhere = await watching(server, old, "other")
    assert await elsewhere.until_heartbeat() == []
    seen = await watching(server, stream.token)
    await server.start(saga_id="s2", wait=True)
    assert numbers(await seen.take(4)) == numbers(await stream.take(4)) == [("s2", n) for n in range(1, 5)]


async def test_a_token_of_another_database_is_out_of_range(server: Server) -> None:
    lost = resume_token(Cursor(10**9, 1, "elsewhere"))
    refusal = await refused(server.sagas.WatchSagas(pb.WatchSagasRequest(resume_token=lost)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "JOURNAL_CHANGED")


async def test_a_watch_whose_client_leaves_is_given_back(server: Server) -> None:
    for _ in range(3):
        stream = await watching(server)
        assert server.engine.watches.count == 1
        stream.call.cancel()
        await eventually(lambda: server.engine.watches.count == 0)


async def test_a_stopping_node_ends_watches_with_the_plea_to_come_back(server: Server) -> None:
    stream = await watching(server)
    server.engine.draining = True
    server.engine.journal.close()
    for ended in (stream.call, server.sagas.WatchSagas(pb.WatchSagasRequest())):
        refusal = await refused(ended)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refusal.retry_after_s == 1
    assert server.engine.watches.count == 0


async def test_what_cannot_be_read_hides_nothing_else(participant: ScriptedParticipant) -> None:
    store = MemoryStore()
    async with running_server(store, participant) as server:
        await server.create(chain("reserve"))
        beginning = (await watching(server)).token
        await server.start(saga_id="s1", wait=True)
        store.database.sagas["default", "s1"].events[0].body = b"\xff"
        events = await (await watching(server, beginning)).take(2)
        assert numbers(events) == [("s1", 1), ("s1", 2)]
        assert [event.state for event in events] == [0, SUCCEEDED]
        assert numbers(await (await watching(server, beginning, states=[SUCCEEDED])).take(1)) == [("s1", 2)]


class TestOnASmallServer:
    """One with little room for watches."""

    @pytest.fixture
    async def server(self, store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
        async with running_server(store, participant, limits={"max_watches": 1, "watch_buffer": 2}) as server:
            yield server

    async def test_more_watches_than_allowed_are_refused(self, server: Server) -> None:
        stream = await watching(server)
        refusal = await refused(server.sagas.WatchSagas(pb.WatchSagasRequest()))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert refusal.retry_after_s
        stream.call.cancel()

    async def test_a_slow_reader_misses_nothing_and_costs_no_memory(self, server: Server) -> None:
        told: list[pb.WatchSagasResponse] = []
        room = asyncio.Event()

        async def send(message: pb.WatchSagasResponse) -> None:
            told.append(message)
            if message.HasField("event"):
                await room.wait()

        running = asyncio.create_task(watch(server, send).run(None))
        await eventually(lambda: len(told) == 1)
        for number in range(20):
            await server.start(saga_id=f"s{number}", wait=True)
        (follower,) = server.engine.journal._followers
        await eventually(lambda: follower.since > follower_start(told))
        room.set()
        await eventually(lambda: len(told) == 81)
        running.cancel()
        events = [message.event for message in told[1:]]
        assert numbers(events) == [(f"s{number}", revision) for number in range(20) for revision in range(1, 5)]


def follower_start(told: list[pb.WatchSagasResponse]) -> Cursor:
    cursor = read_resume_token(told[-1].resume_token)
    assert cursor is not None
    return cursor


def watch(server: Server, send: Any, selection: SagaFilter | None = None, *, heartbeat_s: float = 60) -> WatchSagas:
    """A watch whose reader the test is itself."""
    return WatchSagas(server.engine, "default", selection or SagaFilter(), send, heartbeat_s=heartbeat_s)
