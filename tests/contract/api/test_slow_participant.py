"""A participant that hangs, with many calls in flight and more waiting, does not slow sagas that do not need it."""

import asyncio
import time

import pytest
from support.scripted_participant import Held, ScriptedParticipant, scripted_participant
from support.server import PARTICIPANT, Server, chain, eventually, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad_server.storage.memory import MemoryStore

HANGING, IN_FLIGHT = 2_000, 100


@pytest.mark.parametrize("sessions", [False, True], ids=["unary", "session"])
async def test_sagas_of_a_healthy_participant_are_as_fast_while_another_hangs(sessions: bool) -> None:
    async with scripted_participant(sessions=sessions) as hangs, scripted_participant(sessions=sessions) as healthy:
        participants = {
            PARTICIPANT: {"target": healthy.address},
            "hangs": {"target": hangs.address, "max_in_flight": IN_FLIGHT},
        }
        async with running_server(MemoryStore(), healthy, participants=participants) as server:
            await server.create(chain("reserve", "charge"))
            alone_s = min([await duration_s(server) for _ in range(3)])
            held = await hang(server, hangs)
            beside_s = min([await duration_s(server) for _ in range(3)])
            waiting = server.app.transport.states()["hangs"]
            assert (waiting.in_flight, waiting.queued) == (IN_FLIGHT, HANGING - IN_FLIGHT)
            held.release()
    assert beside_s < 3 * alone_s, "they wait for one another"


async def duration_s(server: Server) -> float:
    """How long fifty sagas take that need the healthy one alone."""
    began = time.perf_counter()
    sagas = await asyncio.gather(*(server.start(wait=True) for _ in range(50)))
    assert {saga.state for saga in sagas} == {saga_pb2.SAGA_STATE_SUCCEEDED}
    return time.perf_counter() - began


async def hang(server: Server, participant: ScriptedParticipant) -> Held:
    """Sagas whose first step never ends."""
    held = participant.hold("do_aa")
    participant.always("do_aa", held)
    definition = chain("aa", definitionId="hanging")
    definition.steps[0].participant = "hangs"
    participant.implement(actions=["do_aa"], compensations=["undo_aa"])
    await server.create(definition)
    sagas = [pb.StartSagaRequest(saga_id=f"h{number}", definition_id="hanging") for number in range(HANGING)]
    await rest(server.sagas.StartSagas(iter([pb.StartSagasRequest(sagas=sagas)])))
    await eventually(lambda: len(participant.calls) == IN_FLIGHT)
    return held
