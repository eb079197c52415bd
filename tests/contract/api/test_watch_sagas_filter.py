"""WatchSagas selects transitions by what they have made of their sagas."""

from typing import Any

from support.scripted_participant import failure
from support.server import Server, chain
from support.watching import journal, numbers, watching

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb

COMPENSATING, PARKED = saga_pb2.SAGA_STATE_COMPENSATING, saga_pb2.SAGA_STATE_PARKED
SUCCEEDED, COMPENSATED = saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED


async def behind(server: Server, token: str, namespace: str = "", **selection: Any) -> list[tuple[str, int]]:
    """What a filter selects of that which was there to read."""
    stream = await watching(server, token, namespace, **selection)
    events = await stream.until_heartbeat()
    stream.call.cancel()
    return numbers(events)


async def undone(server: Server, saga_id: str, **fields: Any) -> None:
    server.participant.script("do_ship", failure())
    assert (await server.start(saga_id=saga_id, wait=True, **fields)).state == COMPENSATED


async def parked(server: Server, saga_id: str, **fields: Any) -> None:
    server.participant.script("do_charge", failure())
    server.participant.script("undo_reserve", failure())
    assert (await server.start(saga_id=saga_id, wait=True, **fields)).state == PARKED


async def test_a_filter_is_held_against_each_saga_as_the_transition_left_it(server: Server) -> None:
    await server.create(chain("reserve", "charge", "ship"))
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
        return await behind(server, beginning, namespace, **selection)

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
    await server.create(chain("reserve", "charge", "ship"))
    stream = await watching(server)
    beginning = stream.token
    await server.start(saga_id="s1", wait=True)
    await server.start(saga_id="s2", wait=True)
    await server.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id="s1"))
    await server.settled("s1")
    first, second = await journal(server, "s1"), await journal(server, "s2")
    await stream.until("s1", first[-1].revision)

    async def seen(**selection: Any) -> list[tuple[str, int]]:
        return await behind(server, beginning, **selection)

    ends = [("s1", 4), ("s2", 4), ("s1", first[-1].revision)]
    assert await seen(end_time_min=first[3].time) == ends
    assert await seen(end_time_min=first[3].time, end_time_max=second[3].time) == ends[:1]
    assert await seen(end_time_max=first[-1].time) == ends[:2]
    assert await seen(end_time_min=first[-1].time) == ends[2:]
