"""Markers, parking and taking over when the store is away at the wrong moment."""

import asyncio

import pytest
from support.definitions import definition, step
from support.world import FaultyStore, World

from sagad_server.domain.errors import AlreadyExists, Unavailable
from sagad_server.domain.inputs import Success
from sagad_server.domain.states import ParkingReason, SagaState
from sagad_server.storage.rows import Key

DONE = Success(None)
KEY = ("default", "a")
ORDER = definition(step("one"))


async def booted() -> World:
    world = World(ORDER)
    await world.boot()
    await world.start("a")
    return world


class Away:
    """Makes a method of every store raise Unavailable, each time, until it is told to come back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, when: object = None) -> None:
        self.away, self.calls, self.when = True, 0, when
        real = getattr(FaultyStore, method)

        async def faulty(store: FaultyStore, *args: object, **kwargs: object) -> object:
            self.calls += 1
            if self.away and (self.when is None or args == self.when):
                raise Unavailable("away")
            return await real(store, *args, **kwargs)

        monkeypatch.setattr(FaultyStore, method, faulty)


async def test_one_death_counts_once_however_often_the_store_has_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await booted()
    await world.die()
    world.database.loading[list(world.database.nodes)[-1]] = [KEY]
    away = Away(monkeypatch, "mark_loading")
    await world.boot()
    await world.advance(5)
    assert away.calls > 5
    assert world.database.sagas[KEY].crashes <= 1
    away.away = False
    await world.advance(1)
    assert world.database.sagas[KEY].row.state == SagaState.RUNNING
    assert world.transport.sent == ["a:one"]


async def test_a_marker_that_could_not_be_cleared_is_cleared_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await booted()
    await world.die()
    away = Away(monkeypatch, "mark_loading", when=([],))
    await world.boot()
    assert [KEY] in world.database.loading.values()
    away.away = False
    await world.advance(5)
    assert not any(world.database.loading.values())


async def test_a_node_whose_marker_is_cleared_asks_the_store_for_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await booted()
    away = Away(monkeypatch, "mark_loading")
    away.away = False
    await world.advance(60)
    assert away.calls == 0


async def test_a_saga_that_is_taken_over_while_its_id_is_asked_for_again_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await booted()
    await world.start("warm")
    await world.die()
    real, claimed, go_on = FaultyStore.mark_loading, asyncio.Event(), asyncio.Event()

    async def slow(store: FaultyStore, keys: list[Key]) -> None:
        await real(store, keys)
        claimed.set()
        await go_on.wait()

    monkeypatch.setattr(FaultyStore, "mark_loading", slow)
    await world.boot()
    await claimed.wait()
    await world.commands._definitions.to_start("default", "order", "")
    world.store.gate.clear()
    other = world.starting("a", 2)
    await world.settle()
    assert KEY in world.engine.sagas
    go_on.set()
    await world.settle()
    world.store.gate.set()
    await world.advance(0.5)
    with pytest.raises(AlreadyExists):
        await other
    assert "a:one" in world.transport.sent
    await world.advance(20)
    assert world.recovery.stranded == 0


@pytest.mark.parametrize("parked", [False, True])
async def test_a_follower_hears_of_an_incident_however_often_the_store_has_to_be_asked(
    parked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await booted()
    follower = world.engine.watches.subscribe(KEY)
    real, answers_lost = FaultyStore.park, [Unavailable("lost")] if parked else []

    async def park(store: FaultyStore, key: Key, **kwargs: object) -> bool:
        done = await real(store, key, **kwargs)  # type: ignore[arg-type]
        if answers_lost:
            raise answers_lost.pop()
        return done

    monkeypatch.setattr(FaultyStore, "park", park)
    away = Away(monkeypatch, "list_events")
    world.spawn(world.engine.incidents.park(KEY, 1, 1, ParkingReason.INTERNAL, "abc"))
    await world.advance(3)
    away.away = False
    await world.advance(3)
    event = follower.take()
    assert event is not None
    assert event.revision == 2
    await world.die()
