"""`serve` as the main program of a participant."""

import asyncio
import signal
import sys

import grpc
from support.barrier_worlds import step

from sagad.v1.participant_service_pb2_grpc import ParticipantServiceStub

PROGRAM = """
import asyncio
from sagad_participant import MemoryBarrier, Participant, serve

slow = Participant("slow", barrier=MemoryBarrier())

@slow.action("act")
async def act(call):
    print("started", flush=True)
    await asyncio.sleep(0.5)
    return {"n": 1}

asyncio.run(serve(slow, "127.0.0.1:0", on_ready=lambda address: print(address, flush=True)))
print("stopped", flush=True)
"""


async def test_sigterm_lets_the_call_in_flight_end_and_stops() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        async with grpc.aio.insecure_channel(address) as channel:
            call = ParticipantServiceStub(channel).Step(step())
            assert await process.stdout.readline() == b"started\n"
            process.send_signal(signal.SIGTERM)
            assert (await call).outcome.HasField("success")
        assert await process.stdout.readline() == b"stopped\n"
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
