"""The verdict on a run, read from the sagas and from the participants' ledgers."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1.saga_pb2 import Saga, SagaState
from sagad_examples import ledger
from support.shop import ENDED


@dataclass(frozen=True)
class Verdict:
    """What a run has left behind."""

    sagas: list[Saga]
    lost: set[str]
    """Acknowledged, and not there any more."""
    violations: list[str]
    """What else is wrong, for people."""

    @property
    def guilty(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.lost or self.violations)

    def until_ended_s(self, moment: datetime) -> float:
        """How long it took from then until all had ended that moved then."""
        ends = [ended for began, ended in self._lives if began <= moment < ended]
        return (max(ends) - moment).total_seconds() if ends else 0.0

    def moving(self, began: datetime, ended: datetime) -> int:
        """How many sagas moved in that time."""
        return sum(since <= ended and until >= began for since, until in self._lives)

    @cached_property
    def _lives(self) -> list[tuple[datetime, datetime]]:
        """When each saga was created, and when it had ended."""
        return [(_utc(saga.create_time), _utc(saga.end_time)) for saga in self.sagas]


def _utc(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


async def judge(sagas: list[Saga], acknowledged: Collection[str], examples_dsn: str) -> Verdict:
    """Judges sagas that all have ended."""
    ended = {saga.saga_id: saga.state == SagaState.SAGA_STATE_SUCCEEDED for saga in sagas}
    counts = Counter(saga.saga_id for saga in sagas)
    violations = [f"saga {saga_id} is listed {count} times" for saga_id, count in counts.items() if count > 1]
    violations += [f"saga {s.saga_id} is {SagaState.Name(s.state)}" for s in sagas if s.state not in ENDED]
    violations += await ledger.check(examples_dsn, ended)
    return Verdict(sagas, set(acknowledged) - ended.keys(), violations)
