"""WatchSagas: every transition that a filter selects, each saga's in order, none missing, none twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant, failure
from support.server import Server, chain, eventually, refused, running_server
from support.watching import journal, numbers, watching

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad_server.api.resume_token import read_resume_token, resume_token
from sagad_server.api.watch_sagas import WatchSagas
from sagad_server.engine.follower import Follower
from sagad_server.storage.events import readable_event
from sagad_server.storage.journal import Cursor
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.rows import EventRow
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

SUCCEEDED = saga_pb2.SAGA_STATE_SUCCEEDED


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge", "ship"))


async def undone(server: Server, saga_id: str, **fields: Any) -> saga_pb2.Saga:
    server.participant.script("do_ship", failure())
    return await server.start(saga_id=saga_id, wait=True, **fields)


async def test_a_watch_begins_now_and_brings_the_events_of_all_sagas(server: Server) -> None:
    await server.start(saga_id="before", wait=True)
    stream = await watching(server)
    await server.start(saga_id="s1", wait=True)
    await undone(server, "s2")
    first, second = await journal(server, "s1"), await journal(server, "s2")
    events = [event for event in await stream.take(len(first) + len(second)) if event.saga_id != "before"]
    events += await stream.take(len(first) + len(second) - len(events))
    assert events == [*first, *second]


async def test_an_event_comes_with_the_facts_of_its_saga(server: Server) -> None:
    stream = await watching(server)
    saga = await server.start(saga_id="s1", labels={"region": "north"}, wait=True)
    for _ in range(4):
        watched = await stream.next()
        assert dict(watched.labels) == {"region": "north"}
        assert watched.create_time == saga.create_time


async def test_a_watch_goes_on_behind_any_of_its_events(server: Server) -> None:
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


async def test_heartbeats_bring_tokens_that_go_on_with_the_journal(server: Server) -> None:
    everything = await watching(server)
    told: asyncio.Queue[bytes] = asyncio.Queue()
    running = asyncio.create_task(
        watch(server, told.put, SagaFilter(definition_id="other"), heartbeat_s=0.01).run(None)
    )
    await server.start(saga_id="s1", wait=True)
    await everything.until("s1", 4)
    while (message := decoded(await told.get())).resume_token != everything.token:
        assert not message.events
    running.cancel()
    again = await watching(server, message.resume_token)
    assert await again.until_heartbeat() == []


async def test_what_comes_at_the_moment_of_a_heartbeat_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Follower.ready

    async def ready_when_time_is_over(follower: Follower) -> None:
        await ready(follower)
        await asyncio.Event().wait()

    monkeypatch.setattr(Follower, "ready", ready_when_time_is_over)
    told: asyncio.Queue[bytes] = asyncio.Queue()
    running = asyncio.create_task(watch(server, told.put, heartbeat_s=0.01).run(None))
    await told.get()
    await server.start(saga_id="s1", wait=True)
    events: list[saga_pb2.SagaEvent] = []
    while len(events) < 4:
        events += [watched.event for watched in decoded(await told.get()).events]
    running.cancel()
    assert events == await journal(server, "s1")


async def test_an_event_is_encoded_once_for_all_who_watch(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[str, int]] = []

    def counted(row: EventRow, *args: Any) -> saga_pb2.SagaEvent:
        encoded.append((row.saga_id, row.revision))
        return readable_event(row, *args)

    monkeypatch.setattr("sagad_server.api.watch_sagas.readable_event", counted)
    streams = [await watching(server) for _ in range(3)] + [await watching(server, definition_id="order")]
    await server.start(saga_id="s1", wait=True)
    seen = [numbers(await stream.take(4)) for stream in streams]
    assert seen == [encoded] * 4


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


async def test_a_message_holds_many_events_if_there_are_many_and_never_too_many(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await watching(server)
    beginning = stream.token
    await asyncio.gather(*(server.start(saga_id=f"s{number}", wait=True) for number in range(25)))
    events = await stream.take(100)

    async def told() -> list[pb.WatchSagasResponse]:
        again = await watching(server, beginning)
        messages = [await again.message()]
        while sum(len(message.events) for message in messages) < len(events):
            messages.append(await again.message())
        assert [watched.event for message in messages for watched in message.events] == events
        return messages

    assert 1 < max(len(message.events) for message in await told()) <= 64
    monkeypatch.setattr("sagad_server.api.watch_sagas.MAX_PAGE_BYTES", 1_000)
    assert all(message.ByteSize() < 1_200 for message in await told())


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

        async def send(answer: bytes) -> None:
            told.append(message := decoded(answer))
            if message.events:
                await room.wait()

        running = asyncio.create_task(watch(server, send).run(None))
        await eventually(lambda: len(told) == 1)
        for number in range(20):
            await server.start(saga_id=f"s{number}", wait=True)
        (follower,) = server.engine.journal._audiences
        await eventually(lambda: len(told) == 2 and follower.since > place(told[-1]))
        assert len(told) == 2, "nothing more is told without room, though there is more"
        room.set()
        await eventually(lambda: sum(len(message.events) for message in told) == 80)
        running.cancel()
        events = [watched.event for message in told for watched in message.events]
        assert numbers(events) == [(f"s{number}", revision) for number in range(20) for revision in range(1, 5)]


def decoded(answer: bytes) -> pb.WatchSagasResponse:
    return pb.WatchSagasResponse.FromString(answer)


def place(message: pb.WatchSagasResponse) -> Cursor:
    cursor = read_resume_token(message.resume_token)
    assert cursor is not None
    return cursor


def watch(server: Server, send: Any, selection: SagaFilter | None = None, *, heartbeat_s: float = 60) -> WatchSagas:
    """A watch whose reader the test is itself."""
    return WatchSagas(server.engine, "default", selection or SagaFilter(), send, heartbeat_s=heartbeat_s)
