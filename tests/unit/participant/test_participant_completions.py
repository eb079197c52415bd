"""Telling the coordinator of completed work."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from sagad_participant import Kind, Work, deliver
from sagad_participant.outcomes import success_of

FINAL = [
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
]


@dataclass
class Outbox:
    """Three completed works, and a coordinator that answers as a test says."""

    waiting: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    answers: dict[str, grpc.StatusCode] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    async def undelivered(self, limit: int = 100) -> list[Work]:
        now = datetime.now(UTC)
        return [Work(key, Kind.ACTION, "default", key, "ship", "token", now, success_of()) for key in self.waiting]

    async def delivered(self, work: Work) -> None:
        self.waiting.remove(work.idempotency_key)

    async def complete_step(self, request: Any, *, timeout: float | None = None) -> Any:
        self.told.append(request.saga_id)
        if code := self.answers.get(request.saga_id):
            raise AioRpcError(code, Metadata(), Metadata(), details="scripted")


async def test_what_is_confirmed_is_not_told_again() -> None:
    outbox = Outbox()
    assert await deliver(outbox, outbox.complete_step) == 3
    assert await deliver(outbox, outbox.complete_step) == 0
    assert outbox.told == ["a", "b", "c"]


async def test_a_coordinator_that_is_away_is_told_later() -> None:
    outbox = Outbox(answers={"b": grpc.StatusCode.UNAVAILABLE})
    assert await deliver(outbox, outbox.complete_step) == 1
    assert outbox.waiting == ["b", "c"]
    assert outbox.told == ["a", "b"]


async def test_one_that_fails_does_not_hold_up_the_others() -> None:
    outbox = Outbox(answers={"a": grpc.StatusCode.INTERNAL})
    assert await deliver(outbox, outbox.complete_step) == 2
    assert outbox.waiting == ["a"]


@pytest.mark.parametrize("code", FINAL)
async def test_what_the_coordinator_will_never_take_is_told_once(
    code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(answers={"a": code})
    assert await deliver(outbox, outbox.complete_step) == 3
    assert outbox.waiting == []
    assert "step ship of saga a takes no answer: scripted" in caplog.text


def test_open_work_has_no_request() -> None:
    work = Work("k", Kind.ACTION, "default", "s", "ship", "token", datetime.now(UTC), None)
    with pytest.raises(ValueError, match="'k' is not completed"):
        work.request()
