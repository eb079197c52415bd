"""WatchSaga: in order, none missing, none twice, only what is durable, and it ends when the saga has."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant, failure, success
from support.server import Server, chain, eventually, refused, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad_server.api.watch import Watch
from sagad_server.storage.store import Store


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge", "ship"))


def watching(server: Server, saga_id: str, **fields: Any) -> Any:
    return server.sagas.WatchSaga(pb.WatchSagaRequest(saga_id=saga_id, **fields))


async def watched(server: Server, saga_id: str, **fields: Any) -> list[pb.WatchSagaResponse]:
    """All that a watch brings up to its end."""
    return await rest(watching(server, saga_id, **fields))


async def journal(server: Server, saga_id: str, **fields: Any) -> list[saga_pb2.SagaEvent]:
    request = pb.ListSagaEventsRequest(saga_id=saga_id, page_size=1000, **fields)
    return list((await server.sagas.ListSagaEvents(request)).events)


async def parked(server: Server, saga_id: str) -> saga_pb2.Saga:
    server.participant.script("do_charge", failure())
    server.participant.script("undo_reserve", failure())
    saga = await server.start(saga_id=saga_id, wait=True)
    assert saga.state == saga_pb2.SAGA_STATE_PARKED
    return saga


async def test_a_watch_begins_with_a_snapshot_and_ends_after_the_end(server: Server) -> None:
    held = server.participant.hold("do_reserve")
    await server.start(saga_id="s1")
    stream = watching(server, "s1")
    first = await stream.read()
    held.release()
    following = await rest(stream)
    assert (first.revision, first.snapshot.state) == (1, saga_pb2.SAGA_STATE_RUNNING)
    assert [message.revision for message in following] == [2, 3, 4]
    assert [message.event for message in following] == (await journal(server, "s1"))[1:]
    assert following[-1].event.state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_watch_from_any_revision_brings_what_follows_it(server: Server) -> None:
    await server.start(saga_id="s1", wait=True)
    events = await journal(server, "s1")
    assert [event.revision for event in events] == [1, 2, 3, 4]
    for revision in range(1, 5):
        assert [message.event for message in await watched(server, "s1", after_revision=revision)] == events[revision:]


async def test_watches_that_begin_at_any_moment_see_every_transition_once(server: Server) -> None:
    async def follow(saga_id: str, after_revision: int) -> None:
        messages = await watched(server, saga_id, after_revision=after_revision)
        first = messages[0].revision
        assert [message.revision for message in messages] == list(range(first, 5))
        assert first == after_revision + 1 if after_revision else messages[0].HasField("snapshot")
        assert messages[-1].event.state in (0, saga_pb2.SAGA_STATE_SUCCEEDED)

    async def run(number: int) -> None:
        saga = await server.start(saga_id=f"many-{number}")
        await asyncio.gather(*(follow(saga.saga_id, after_revision) for after_revision in (0, 1, 0, 1)))

    await asyncio.gather(*(run(number) for number in range(50)))
    await eventually(lambda: server.engine.watches.count == 0)


async def test_a_parked_saga_does_not_end_the_stream(server: Server) -> None:
    saga = await parked(server, "s1")
    stream = watching(server, "s1", after_revision=saga.revision)
    await eventually(lambda: server.engine.watches.count == 1)
    await server.sagas.AbandonSaga(pb.AbandonSagaRequest(saga_id="s1", revision=saga.revision, reason="test"))
    assert [message.event.state for message in await rest(stream)] == [saga_pb2.SAGA_STATE_ABANDONED]


async def test_a_succeeded_saga_that_was_compensated_is_followed_to_its_last_end(server: Server) -> None:
    await server.start(saga_id="s1", wait=True)
    await server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id="s1"))
    await eventually(lambda: ("default", "s1") not in server.engine.sagas)
    states = [message.event.state for message in await watched(server, "s1", after_revision=3)]
    assert states[0] == saga_pb2.SAGA_STATE_SUCCEEDED
    assert states[-1] == saga_pb2.SAGA_STATE_COMPENSATED


async def test_a_view_says_whether_data_is_sent(server: Server) -> None:
    server.participant.script("do_reserve", success({"reservation": 7}))
    held = server.participant.hold("do_charge")
    await server.start(saga_id="s1", input={"sku": "a"}, metadata={"trace": "1"})
    await server.participant.called("do_charge")
    basic, full = watching(server, "s1"), watching(server, "s1", view=saga_pb2.SAGA_VIEW_FULL)
    plain, whole = (await basic.read()).snapshot, (await full.read()).snapshot
    held.release(success({"paid": True}))
    assert not plain.HasField("input")
    assert not plain.metadata
    assert not plain.steps[0].HasField("output")
    assert whole.input.json.struct_value.fields["sku"].string_value == "a"
    assert dict(whole.metadata) == {"trace": "1"}
    assert whole.steps[0].output.json.struct_value.fields["reservation"].number_value == 7
    changes = [change for message in await rest(full) for change in message.event.changes]
    assert changes[0].output.json.struct_value.fields["paid"].bool_value is True
    assert not any(change.HasField("output") for message in await rest(basic) for change in message.event.changes)


async def test_an_unknown_saga_is_not_found(server: Server) -> None:
    for after_revision in (0, 1):
        refusal = await refused(watching(server, "nothing", after_revision=after_revision))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")


async def test_a_revision_that_is_not_yet_known_is_out_of_range(server: Server) -> None:
    await server.start(saga_id="s1", wait=True)
    refusal = await refused(watching(server, "s1", after_revision=5))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_UNKNOWN")
    assert refusal.metadata == {"revision": "4"}


async def test_a_purged_revision_is_out_of_range_and_the_end_is_still_shown(server: Server) -> None:
    await server.start(saga_id="s1", wait=True)
    await server.admin.PurgeSagas(PurgeSagasRequest())
    refusal = await refused(watching(server, "s1", after_revision=2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "PURGED")
    (tombstone,) = await watched(server, "s1")
    assert tombstone.snapshot.purged
    assert tombstone.snapshot.state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert await watched(server, "s1", after_revision=4) == []


async def test_a_negative_revision_is_invalid(server: Server) -> None:
    refusal = await refused(watching(server, "s1", after_revision=-1))
    assert set(refusal.violations) == {"after_revision"}


async def test_a_watch_that_ends_is_given_back(server: Server) -> None:
    await server.start(saga_id="s1", wait=True)
    await watched(server, "s1")
    await refused(watching(server, "s1", after_revision=9))
    await refused(watching(server, "nothing"))
    assert server.engine.watches.count == 0


async def test_a_watch_whose_client_leaves_is_given_back(server: Server) -> None:
    await parked(server, "s1")
    for _ in range(3):
        stream = watching(server, "s1")
        await stream.read()
        assert server.engine.watches.count == 1
        stream.cancel()
        await eventually(lambda: server.engine.watches.count == 0)


async def test_a_stopping_node_ends_watches_with_the_plea_to_come_back(server: Server) -> None:
    await parked(server, "s1")
    stream = watching(server, "s1")
    await stream.read()
    server.engine.draining = True
    server.engine.watches.close()
    for ended in (stream, watching(server, "s1")):
        refusal = await refused(ended)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refusal.retry_after_s == 1
    assert server.engine.watches.count == 0


@pytest.fixture
async def small_server(store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
    """One with little room for watches, in place of `server`."""
    async with running_server(store, participant, limits={"max_watches": 1, "watch_buffer": 2}) as server:
        await server.create(chain("reserve", "charge", *(f"step{i}" for i in range(40))))
        yield server


class TestOnASmallServer:
    @pytest.fixture
    def server(self, small_server: Server) -> Server:
        return small_server

    @pytest.fixture(autouse=True)
    def _order(self) -> None:
        """Created already."""

    async def test_heartbeats_come_while_nothing_happens(self, server: Server) -> None:
        saga = await parked(server, "s1")
        told: asyncio.Queue[pb.WatchSagaResponse] = asyncio.Queue()
        running = asyncio.create_task(watch(server, told.put, heartbeat_s=0.01).run(saga.revision))
        for _ in range(3):
            message = await told.get()
            assert message.HasField("heartbeat")
            assert message.revision == saga.revision
        running.cancel()

    async def test_more_watches_than_allowed_are_refused(self, server: Server) -> None:
        await parked(server, "s1")
        stream = watching(server, "s1")
        await stream.read()
        refusal = await refused(watching(server, "s1"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert refusal.retry_after_s
        stream.cancel()

    async def test_a_slow_reader_misses_nothing_and_costs_no_memory(self, server: Server) -> None:
        held = server.participant.hold("do_reserve")
        await server.start(saga_id="s1")
        told: list[pb.WatchSagaResponse] = []
        room = asyncio.Event()

        async def send(message: pb.WatchSagaResponse) -> None:
            told.append(message)
            await room.wait()

        running = asyncio.create_task(watch(server, send).run(0))
        await eventually(lambda: len(told) == 1)
        held.release()
        await eventually(lambda: ("default", "s1") not in server.engine.sagas)  # it ends while the reader stands still
        assert len(told) == 1
        room.set()
        await running
        assert [message.revision for message in told] == list(range(1, 44))
        assert told[-1].event.state == saga_pb2.SAGA_STATE_SUCCEEDED


def watch(server: Server, send: Any, *, heartbeat_s: float = 60) -> Watch:
    """A watch of s1 whose reader the test is itself."""

    async def read(key: tuple[str, str], *, full: bool) -> saga_pb2.Saga:
        return await server.get(key[1])

    return Watch(server.engine, read, ("default", "s1"), send, full=False, heartbeat_s=heartbeat_s)
