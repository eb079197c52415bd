"""What a node does by itself: purges, counts, and says how it is."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from prometheus_client import generate_latest
from support.scripted_participant import ScriptedParticipant, failure
from support.server import chain, eventually, running_server

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.saga_pb2 import SagaState
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Purged


async def test_ended_sagas_older_than_a_setting_are_purged_and_their_end_stays_known(
    participant: ScriptedParticipant,
) -> None:
    service = {"cleanup_interval": "1s", "retention": "0s"}
    async with running_server(MemoryStore(), participant, service=service) as server:
        await server.create(chain("one"))
        await server.start(saga_id="old")
        await server.settled("old")
        await eventually(lambda: server.store.database.sagas["default", "old"].row.purge_time is not None)
        saga = await server.get("old")
        assert saga.purged
        assert saga.state == SagaState.SAGA_STATE_SUCCEEDED
        again = await server.start(saga_id="old")
        assert (again.purged, again.state) == (True, SagaState.SAGA_STATE_SUCCEEDED)
        assert len(participant.calls) == 1, "a late repeat starts nothing"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id="old"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


class Purges(MemoryStore):
    """Notes what it is asked to purge, and what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[datetime | None] = []
        self.done: list[Purged] = []

    async def purge(self, namespace: str | None, selection: SagaFilter, *bounds: Any, dry_run: bool) -> Purged:
        self.asked.append(selection.end_time_min)
        self.done.append(await super().purge(namespace, selection, *bounds, dry_run=dry_run))
        return self.done[-1]


async def test_each_batch_of_the_clean_up_begins_where_the_one_before_it_has_ended(
    participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagad_server.upkeep._PURGE_BATCH", 1)
    store = Purges()
    async with running_server(store, participant, service={"cleanup_interval": "1s", "retention": "0s"}) as server:
        await server.create(chain("one"))
        for saga_id in ("a", "b"):
            await server.start(saga_id=saga_id, wait=True)
        await eventually(lambda: sum(done.count for done in store.done) == 2)
    begun = [asked for asked, before in zip(store.asked[1:], store.done, strict=False) if before.count]
    assert begun == [done.until for done in store.done if done.count][: len(begun)]
    assert begun


class AlwaysMore(MemoryStore):
    """In which so many more have ended whenever it is asked to purge."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.looked_for_old_ones = 0
        self._count = count

    async def purge(self, *args: Any, dry_run: bool) -> Purged:
        return Purged(self._count, None)

    async def forget(self, older_than: timedelta, limit: int) -> int:
        self.looked_for_old_ones += 1
        return 0


@pytest.mark.parametrize("count", [1, 2], ids=["a few", "a batch"])
async def test_where_there_is_always_more_to_purge_tombstones_are_forgotten_all_the_same(
    participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("sagad_server.upkeep._PURGE_BATCH", 2)
    monkeypatch.setattr("sagad_server.upkeep._MOST_BATCHES", 3)
    store = AlwaysMore(count)
    async with running_server(store, participant, service={"cleanup_interval": "1s"}):
        await eventually(lambda: store.looked_for_old_ones == 3)


async def test_tombstones_are_forgotten_after_their_time(participant: ScriptedParticipant) -> None:
    service = {"cleanup_interval": "1s", "retention": "0s", "tombstone_retention": "0s"}
    async with running_server(MemoryStore(), participant, service=service) as server:
        await server.create(chain("one"))
        await server.start(saga_id="old")
        await server.settled("old")
        await eventually(lambda: ("default", "old") not in server.store.database.sagas)


async def test_the_metrics_tell_what_has_happened(participant: ScriptedParticipant) -> None:
    async with running_server(MemoryStore(), participant) as server:
        await server.create(chain("one", "two"))
        participant.script("do_two", failure("NO"))
        await server.start(saga_id="a")
        await server.settled("a")
        await server.start(saga_id="b")
        await server.settled("b")
        text = generate_latest(server.metrics.registry).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['sagad_sagas_started_total{definition="order"}'] == "2.0"
    assert lines['sagad_sagas_ended_total{definition="order",state="COMPENSATED"}'] == "1.0"
    assert lines['sagad_sagas_ended_total{definition="order",state="SUCCEEDED"}'] == "1.0"
    assert lines['sagad_saga_duration_seconds_count{definition="order",state="SUCCEEDED"}'] == "1.0"
    attempts = 'sagad_step_attempts_total{category="BUSINESS",direction="ACTION",outcome="failure"'
    assert lines[f'{attempts},participant="inventory"}}'] == "1.0"
    assert float(lines["sagad_transitions_total"]) == 4 + 3
    assert lines["sagad_stranded"] == "0.0"
    assert lines["sagad_sagas_in_memory"] == "0.0"


async def test_a_part_that_fails_takes_the_node_down(participant: ScriptedParticipant) -> None:
    from support.server import _config

    from sagad_server.app import App

    app = App(_config(participant, {}), MemoryStore())
    await app.start()

    async def broken() -> None:
        raise ZeroDivisionError

    app._spawn(broken())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(app.run_until_stopped(), 30)
