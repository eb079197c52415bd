"""The floor: the barest durable three-step saga coordinator on PostgreSQL, with no features.

It pays for what sagad cannot avoid - one commit before each call, one call a step - and for nothing else: no
definitions, retries, timeouts, recovery or watches. Its speed is what the write path alone costs on this machine.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import grpc.aio
import uvloop
from cyclopts import App

from bench import floor_pb2 as pb
from bench import floor_pb2_grpc as rpc
from bench.serving import serve

Connection: TypeAlias = "asyncpg.Connection[Any]"
StartContext: TypeAlias = "grpc.aio.ServicerContext[pb.StartRequest, pb.StartResponse]"
StatsContext: TypeAlias = "grpc.aio.ServicerContext[pb.GetStatsRequest, pb.GetStatsResponse]"
CallContext: TypeAlias = "grpc.aio.ServicerContext[pb.Call, pb.Reply]"
SessionContext: TypeAlias = "grpc.aio.ServicerContext[pb.Calls, pb.Replies]"
Session: TypeAlias = "grpc.aio.StreamStreamCall[pb.Calls, pb.Replies]"

app = App(name="floor", help="The parts of the floor, each a process of its own.")
STEP_TIMEOUT_S = 30.0
BATCH_ROWS = 512
FRAME_CALLS = 256
RUNNING, COMPENSATING, ENDED = 1, 2, 3

SCHEMA = """
create table saga (
    id text primary key,
    state smallint not null,
    step smallint not null,
    revision int not null,
    owner int not null,
    body bytea not null,
    update_time timestamptz not null default now()
) with (fillfactor = 50);
create table event (
    position bigint generated always as identity primary key,
    saga_id text not null,
    revision int not null,
    kind smallint not null,
    payload bytea not null,
    time timestamptz not null default now()
);
"""

# One statement, one round trip, one commit: new sagas, guarded updates (probed by key), and a journal row for each.
WRITE = """
with inserted as (
    insert into saga (id, state, step, revision, owner, body)
    select n.id, 1, 0, 1, 1, n.body from unnest($1::text[], $2::bytea[]) n (id, body)
    on conflict do nothing
    returning id, revision, state, body
), target as materialized (
    select locked.ctid, n.*
    from unnest($3::text[], $4::smallint[], $5::smallint[], $6::int[], $7::bytea[]) n (id, state, step, revision, body),
    lateral (
        select s.ctid from saga s where s.id = n.id and s.owner = 1 and s.revision = n.revision - 1 for update
    ) locked
), updated as (
    update saga s
    set state = t.state, step = t.step, revision = t.revision, body = t.body, update_time = now()
    from target t where s.ctid = t.ctid
    returning s.id, t.revision, t.state, t.body
), journaled as (
    insert into event (saga_id, revision, kind, payload)
    select * from inserted union all select * from updated
)
select id from inserted union all select id from updated
"""


@dataclass(slots=True)
class Saga:
    """`step` is the index of the step that runs or is compensated now."""

    id: str
    input: bytes
    ended: asyncio.Future[None]
    body: bytes
    state: int = RUNNING
    step: int = 0
    revision: int = 1


class Coordinator(rpc.CoordinatorServicer):
    """start -> write -> call -> write -> ... The writes of all sagas that are ready share one commit."""

    def __init__(self, participant: "rpc.ParticipantAsyncStub", steps: Sequence[str], tasks: asyncio.TaskGroup) -> None:
        self._participant = participant
        self._steps = steps
        self._tasks = tasks
        self._writes: list[Saga] = []
        self._write_ready = asyncio.Event()
        self._commits = 0
        self._calls: list[pb.Call] | None = None
        """For the session, if there is one."""
        self._call_ready = asyncio.Event()
        self._called: dict[int, Saga] = {}
        self._tags = itertools.count(1)

    async def commit_writes(self, connection: Connection) -> None:
        """Commits what is ready, for ever."""
        statement = await connection.prepare(WRITE)
        while True:
            if not self._writes:
                self._write_ready.clear()
                await self._write_ready.wait()
            batch, self._writes = self._writes[:BATCH_ROWS], self._writes[BATCH_ROWS:]
            new = [saga for saga in batch if saga.revision == 1]
            old = [saga for saga in batch if saga.revision > 1]
            rows = await statement.fetch(
                [saga.id for saga in new],
                [saga.body for saga in new],
                [saga.id for saga in old],
                [saga.state for saga in old],
                [saga.step for saga in old],
                [saga.revision for saga in old],
                [saga.body for saga in old],
            )
            if len(rows) != len(batch):
                raise RuntimeError(f"wrote {len(rows)} of {len(batch)} sagas")
            self._commits += 1
            for saga in batch:
                self._committed(saga)

    def _write(self, saga: Saga) -> None:
        self._writes.append(saga)
        self._write_ready.set()

    def _committed(self, saga: Saga) -> None:
        if saga.state == ENDED:
            saga.ended.set_result(None)
        elif self._calls is not None:
            self._queue(saga, self._calls)
        else:
            self._tasks.create_task(self._call(saga))

    def _call_of(self, saga: Saga) -> pb.Call:
        step = self._steps[saga.step]
        return pb.Call(saga_id=saga.id, step=step, idempotency_key=f"{saga.id}/{step}", input=saga.input)

    async def _call(self, saga: Saga) -> None:
        method = self._participant.Step if saga.state == RUNNING else self._participant.Compensate
        self._replied(saga, await method(self._call_of(saga), timeout=STEP_TIMEOUT_S))

    def _queue(self, saga: Saga, calls: list[pb.Call]) -> None:
        call = self._call_of(saga)
        call.tag = next(self._tags)
        self._called[call.tag] = saga
        calls.append(call)
        self._call_ready.set()

    async def send_calls(self, session: "Session") -> None:
        """Sends what is ready by the session, for ever."""
        self._calls = []
        while True:
            if not self._calls:
                self._call_ready.clear()
                await self._call_ready.wait()
                await asyncio.sleep(0)  # more may be ready by then
            frame, self._calls = self._calls[:FRAME_CALLS], self._calls[FRAME_CALLS:]
            await session.write(pb.Calls(calls=frame))

    async def take_replies(self, session: "Session") -> None:
        async for replies in session:
            for reply in replies.replies:
                self._replied(self._called.pop(reply.tag), reply)

    def _replied(self, saga: Saga, reply: pb.Reply) -> None:
        if saga.state == RUNNING and not reply.refused:
            self._move(saga, RUNNING, saga.step + 1)
        else:
            self._move(saga, COMPENSATING, saga.step - 1)
        saga.body = reply.output
        saga.revision += 1
        self._write(saga)

    def _move(self, saga: Saga, state: int, step: int) -> None:
        saga.step = step
        saga.state = state if 0 <= step < len(self._steps) else ENDED

    def _start(self, request: pb.StartRequest) -> "asyncio.Future[None]":
        ended = asyncio.get_running_loop().create_future()
        self._write(Saga(request.saga_id, request.input, ended, body=request.input))
        return ended

    async def Start(self, request: pb.StartRequest, context: StartContext) -> pb.StartResponse:
        await self._start(request)
        return pb.StartResponse(saga_id=request.saga_id)

    async def StartMany(
        self, request_iterator: AsyncIterator[pb.StartRequest], context: StartContext
    ) -> AsyncIterator[pb.StartResponse]:
        ended: asyncio.Queue[str] = asyncio.Queue()
        started = answered = 0
        reading = True

        async def read() -> None:
            nonlocal started, reading
            async for request in request_iterator:
                started += 1
                self._start(request).add_done_callback(partial(put, ended, request.saga_id))
            reading = False
            ended.put_nowait("")

        self._tasks.create_task(read())
        while reading or answered < started:
            if saga_id := await ended.get():
                answered += 1
                yield pb.StartResponse(saga_id=saga_id)

    async def GetStats(self, request: pb.GetStatsRequest, context: StatsContext) -> pb.GetStatsResponse:
        return pb.GetStatsResponse(commits=self._commits)


def put(ended: asyncio.Queue[str], saga_id: str, _: "asyncio.Future[None]") -> None:
    ended.put_nowait(saga_id)


class Participant(rpc.ParticipantServicer):
    """Answers with what it got, and refuses the step `refuse`."""

    async def Step(self, request: pb.Call, context: CallContext) -> pb.Reply:
        return pb.Reply(output=request.input, refused=request.step == "refuse")

    async def Compensate(self, request: pb.Call, context: CallContext) -> pb.Reply:
        return pb.Reply(output=request.input)

    async def Session(
        self, request_iterator: AsyncIterator[pb.Calls], context: SessionContext
    ) -> AsyncIterator[pb.Replies]:
        async for frame in request_iterator:
            yield pb.Replies(replies=[pb.Reply(tag=call.tag, output=call.input) for call in frame.calls])


async def run_coordinator(dsn: str, participant_port: int, steps: Sequence[str], sessions: bool) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"enable_seqscan": "off"})
    await connection.execute(SCHEMA)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{participant_port}") as channel, asyncio.TaskGroup() as tasks:
        participant: rpc.ParticipantAsyncStub = rpc.ParticipantStub(channel)
        servicer = Coordinator(participant, steps, tasks)
        if sessions:
            session = participant.Session()
            tasks.create_task(servicer.send_calls(session))
            tasks.create_task(servicer.take_replies(session))
        tasks.create_task(servicer.commit_writes(connection))
        tasks.create_task(serve(lambda server: rpc.add_CoordinatorServicer_to_server(servicer, server)))


@app.command
def coordinator(
    *, dsn: str, participant_port: int, refuse: bool = False, five: bool = False, sessions: bool = False
) -> None:
    """Runs the coordinator on an empty database.

    There are three steps, with --five as many. With --refuse the last one is refused. With --sessions the calls go in
    batches on one stream, on which the participant refuses nothing.
    """
    if refuse and sessions:
        raise SystemExit("--refuse and --sessions do not go together")
    steps = ("reserve", "charge", *("insure", "pack") * five, "refuse" if refuse else "ship")
    uvloop.run(run_coordinator(dsn, participant_port, steps, sessions))


@app.command
def participant() -> None:
    """Runs the participant."""
    uvloop.run(serve(lambda server: rpc.add_ParticipantServicer_to_server(Participant(), server)))


if __name__ == "__main__":
    app()
