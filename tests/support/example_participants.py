"""The example participants as a process of their own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1.participant_service_pb2_grpc import ParticipantServiceStub
from sagad_participant.payloads import payload_of

STEPS = {
    "reserve": ("inventory", "reserve_stock", "release_stock"),
    "charge": ("payment", "charge_card", "refund_card"),
    "ship": ("shipping", "create_shipment", "cancel_shipment"),
    "notify": ("shipping", "notify_customer", ""),
}


def order(order_id: str, **fields: object) -> dict[str, object]:
    """The input of a saga of the example definitions."""
    return {"order_id": order_id, "customer": "alice", "sku": "apple", "quantity": 2, "amount_cents": 1999, **fields}


@dataclass
class Examples:
    """A running process. Calls it as a coordinator would."""

    process: asyncio.subprocess.Process
    addresses: dict[str, str]
    channels: dict[str, grpc.aio.Channel]

    def stub(self, participant: str) -> Any:
        return ParticipantServiceStub(self.channels[participant])

    async def step(self, step_id: str, order: dict[str, object], *, timeout: float = 10, **fields: Any) -> Any:
        """The outcome of an action."""
        participant, action, _ = STEPS[step_id]
        request = pb.StepRequest(action=action, **{**_common(step_id, order), **fields})
        return (await self.stub(participant).Step(request, timeout=timeout)).outcome

    async def undo(self, step_id: str, order: dict[str, object], *, timeout: float = 10, **fields: Any) -> Any:
        """The outcome of a compensation."""
        participant, action, compensation = STEPS[step_id]
        request = pb.CompensateRequest(
            action=action,
            compensation=compensation,
            outcome=pb.ACTION_OUTCOME_UNKNOWN,
            **_common(step_id, order),
            **fields,
        )
        return (await self.stub(participant).Compensate(request, timeout=timeout)).outcome


def _common(step_id: str, order: dict[str, object]) -> dict[str, Any]:
    return {
        "namespace": "default",
        "saga_id": str(order["order_id"]),
        "step_id": step_id,
        "idempotency_key": f"{order['order_id']}/{step_id}/1",
        "fencing_token": 1,
        "attempt": 1,
        "input": payload_of(order),
        "completion_token": f"token of {step_id}",
    }


@asynccontextmanager
async def examples(dsn: str, *arguments: str, sagad: str = "127.0.0.1:1") -> AsyncIterator[Examples]:
    """Serves the examples on free ports; killed at the end, if they still run."""
    command = ("-m", "sagad_examples", "--dsn", dsn, "--port", "0", "--sagad", sagad, *arguments)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert line.startswith("ready: "), line
        addresses = dict(item.split(" ") for item in line.removeprefix("ready: ").strip().split(", "))
        channels = {name: grpc.aio.insecure_channel(address) for name, address in addresses.items()}
        try:
            yield Examples(process, addresses, channels)
        finally:
            for channel in channels.values():
                await channel.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
