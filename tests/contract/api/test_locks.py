"""Resource locks through gRPC."""

import asyncio

from support.server import Server, chain, refused

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.definition_service_pb2 import CreateDefinitionRequest

ORDER = "'order/' + input.order"
HELD, WAITING, LATER = saga_pb2.LOCK_STATE_HELD, saga_pb2.LOCK_STATE_WAITING, saga_pb2.LOCK_STATE_LATER


async def test_two_sagas_of_one_lock_run_one_after_the_other_and_their_calls_carry_the_token(server: Server) -> None:
    await server.create(chain("reserve", "charge", locks=[ORDER]))
    held = server.participant.hold("do_charge")
    await server.start(saga_id="a", input={"order": "1"})
    await server.participant.called("do_charge")
    waiting = asyncio.ensure_future(server.start(saga_id="b", input={"order": "1"}, wait=True))
    await server.start(saga_id="c", input={"order": "2"}, wait=True)
    assert "b" not in {call.saga_id for call in server.participant.calls}

    held.release()

    assert (await waiting).state == saga_pb2.SAGA_STATE_SUCCEEDED
    tokens = [(call.saga_id, dict(call.lock_tokens)) for call in server.participant.calls if call.saga_id in "ab"]
    assert [saga_id for saga_id, _ in tokens] == ["a", "a", "b", "b"]
    assert tokens[0] == tokens[1]
    assert tokens[2][1]["order/1"] > tokens[0][1]["order/1"]


async def test_holder_and_waiters_are_shown_by_get_and_list(server: Server) -> None:
    await server.create(chain("reserve", locks=[ORDER, "'user/' + input.user"]))
    held = server.participant.hold("do_reserve")
    await server.start(saga_id="a", input={"order": "1", "user": "x"})
    await server.participant.called("do_reserve")
    await server.start(saga_id="b", input={"order": "1", "user": "x"})
    await server.start(saga_id="c", input={"order": "1", "user": "y"})

    holder, waiter = await server.get("a"), await server.get("b")
    listed = {saga.saga_id: saga for saga in (await server.sagas.ListSagas(pb.ListSagasRequest())).sagas}

    assert [(lock.name, lock.state) for lock in holder.locks] == [("order/1", HELD), ("user/x", HELD)]
    assert list(holder.locks[0].waiting_saga_ids) == ["b", "c"]
    assert holder.locks[0].fencing_token
    assert holder.locks[0].HasField("take_time")
    assert [(lock.name, lock.state) for lock in waiter.locks] == [("order/1", WAITING), ("user/x", LATER)]
    assert (waiter.locks[0].holder_saga_id, waiter.locks[0].waiting_count) == ("a", 2)
    assert list(listed["a"].locks) == list(holder.locks)
    assert list(listed["b"].locks) == list(waiter.locks)[:1]
    held.release()
    await server.settled("c")
    assert not (await server.get("a")).locks


async def test_waits_and_grants_stand_in_the_journal(server: Server) -> None:
    await server.create(chain("reserve", locks=[ORDER]))
    held = server.participant.hold("do_reserve")
    await server.start(saga_id="a", input={"order": "1"})
    await server.participant.called("do_reserve")
    await server.start(saga_id="b", input={"order": "1"})
    held.release()
    await server.settled("b")

    events = (await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="b"))).events

    assert [event.waits_for_lock for event in events[:2]] == ["order/1", ""]
    assert (events[1].cause, events[1].granted_lock) == (saga_pb2.EVENT_CAUSE_LOCK_GRANTED, "order/1")


async def test_an_input_that_names_no_lock_is_refused_with_every_expression_that_fails(server: Server) -> None:
    await server.create(chain("reserve", locks=["input.order", "input.none", "'x'"]))
    refusal = await refused(server.sagas.StartSaga(pb.StartSagaRequest(saga_id="a", definition_id="order")))
    assert refusal.code.name == "INVALID_ARGUMENT"
    assert "locks[0]" in refusal.message
    assert "locks[1]" in refusal.message


async def test_a_definition_says_what_is_wrong_with_its_locks(server: Server) -> None:
    wrong = chain("reserve", locks=["'x' + steps.reserve.output", "input.", "unknown"])
    refusal = await refused(server.definitions.CreateDefinition(CreateDefinitionRequest(definition=wrong)))
    assert {field for field in refusal.violations if "locks" in field} == {f"definition.locks[{i}]" for i in range(3)}
    many = chain("reserve", locks=[f"'{i}'" for i in range(17)])
    refusal = await refused(server.definitions.CreateDefinition(CreateDefinitionRequest(definition=many)))
    assert "at most 16" in refusal.violations["definition.locks"]


async def test_a_watch_sees_what_a_saga_waits_for(server: Server) -> None:
    await server.create(chain("reserve", locks=[ORDER]))
    held = server.participant.hold("do_reserve")
    await server.start(saga_id="a", input={"order": "1"})
    await server.participant.called("do_reserve")
    await server.start(saga_id="b", input={"order": "1"})
    watch = server.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="b"))
    first = await watch.read()
    assert [(lock.name, lock.state) for lock in first.snapshot.locks] == [("order/1", WAITING)]
    held.release()
    second = await watch.read()
    assert second.event.granted_lock == "order/1"
    watch.cancel()
