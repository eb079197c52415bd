"""Reports over the read model that `sagad project` keeps in MongoDB. Needs the extra `mongo`.

Nothing here loads the coordinator or its database. All is counted by MongoDB, so that memory is bounded here by the
numbers of definitions, days and steps, and not by that of sagas.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

_CONNECT_MS = 3_000
_QUANTILES = (0.5, 0.95, 0.99)


class UrlRefused(Exception):  # noqa: N818 - by the library; server and client each have one: neither imports the other
    """MongoDB's URL cannot be used. The message does not hold it: there may be a password in it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sagas are reported on."""

    namespace: str
    create_time_min: datetime
    """Inclusive, with a zone, as the other one."""
    create_time_max: datetime | None = None
    """Exclusive; None: no bound."""
    definition_id: str = ""
    """Empty: all."""

    def to_query(self) -> dict[str, Any]:
        times = {"$gte": self.create_time_min}
        if self.create_time_max is not None:
            times["$lt"] = self.create_time_max
        query: dict[str, Any] = {"namespace": self.namespace, "create_time": times}
        if self.definition_id:
            query["definition_id"] = self.definition_id
        return query


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What has become of sagas so far: how many are in each state."""

    states: Counter[str]

    @property
    def started(self) -> int:
        return self.states.total()

    @property
    def moving(self) -> int:
        """Neither ended nor parked."""
        return self.states["RUNNING"] + self.states["COMPENSATING"]

    @property
    def success_rate(self) -> float | None:
        """SUCCEEDED over all that have ended, 0-1; None: none has."""
        ended = self.states["SUCCEEDED"] + self.states["COMPENSATED"] + self.states["ABANDONED"]
        return self.states["SUCCEEDED"] / ended if ended else None


@dataclass(frozen=True, slots=True)
class Durations:
    """From create_time to end_time of the sagas that have ended, in seconds, each within 0.5 %; None: none has."""

    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class StepFailures:
    """Attempts of a step, or of its compensation, that failed on a day (UTC)."""

    day: str
    definition_id: str
    step_id: str
    category: str
    failures: int
    sagas: int


@dataclass(frozen=True, slots=True)
class Report:
    """All by definition or day of creation (UTC), in order."""

    by_definition: dict[str, tuple[Outcomes, Durations]]
    by_day: dict[str, Outcomes]
    failures: list[StepFailures]
    incomplete: int
    """Sagas of the namespace of which the topic lacked events: their figures may be too low, or missing."""


@dataclass(slots=True)
class Reports:
    """An asynchronous context manager. Raises pymongo's PyMongoError where MongoDB does not answer, or refuses.

    Args:
        url: of MongoDB. A secondary is good enough to read from: `readPreference=secondaryPreferred`.
        database: that `sagad project` writes to.
        timeout_s: bound of each query, in seconds.

    Raises:
        UrlRefused: the URL is wrong.
    """

    url: str = field(repr=False)
    database: str = "sagad"
    timeout_s: float = 60.0
    _client: AsyncMongoClient[dict[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self._client = AsyncMongoClient(
                self.url,
                appname="sagad-report",
                serverSelectionTimeoutMS=_CONNECT_MS,
                connectTimeoutMS=_CONNECT_MS,
                socketTimeoutMS=round(self.timeout_s * 1000),
                retryReads=False,  # a person waits
            )
        except (PyMongoError, ValueError) as error:
            raise UrlRefused(f"pymongo does not take it ({type(error).__name__})") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def report(self, selection: Selection) -> Report:
        """All figures; they are counted one after the other, while the model may go on."""
        query = selection.to_query()
        definitions = await self._outcomes(query, "definition_id")
        durations = await self._durations(query)
        incomplete = await self._sagas.count_documents({"namespace": selection.namespace, "complete": False})
        return Report(
            {name: (outcomes, durations.get(name, Durations())) for name, outcomes in definitions.items()},
            await self._outcomes(query, "create_day"),
            await self._failures(query),
            incomplete,
        )

    @property
    def _sagas(self) -> Any:
        return self._client[self.database]["sagas"]

    async def _outcomes(self, query: Mapping[str, Any], field_name: str) -> dict[str, Outcomes]:
        counts: dict[str, Outcomes] = {}
        async for key, count in self._counted(query, [], {"of": f"${field_name}", "state": "$state"}):
            counts.setdefault(key["of"], Outcomes(Counter())).states[key["state"]] += count["sagas"]
        return counts

    async def _durations(self, query: Mapping[str, Any]) -> dict[str, Durations]:
        ended = {**query, "rounded_duration_ms": {"$ne": None}}
        group = {"definition_id": "$definition_id", "duration_ms": "$rounded_duration_ms"}
        found: dict[str, Durations] = {}
        name, histogram = "", Counter[int]()
        async for key, count in self._counted(ended, [], group):
            if key["definition_id"] != name:
                found[name] = _quantiles(histogram)
                name, histogram = key["definition_id"], Counter()
            histogram[key["duration_ms"]] += count["sagas"]
        found[name] = _quantiles(histogram)
        return found

    async def _failures(self, query: Mapping[str, Any]) -> list[StepFailures]:
        failed = {**query, "failures.0": {"$exists": True}}
        group = {
            "day": "$failures.day",
            "definition_id": "$definition_id",
            "step_id": "$failures.step_id",
            "category": "$failures.category",
        }
        sums = {"failures": {"$sum": "$failures.count"}}
        counted = self._counted(failed, [{"$unwind": "$failures"}], group, sums)
        return [StepFailures(**key, failures=count["failures"], sagas=count["sagas"]) async for key, count in counted]

    async def _counted(
        self,
        query: Mapping[str, Any],
        stages: list[dict[str, Any]],
        group: Mapping[str, str],
        sums: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[tuple[dict[str, Any], dict[str, int]]]:
        """Each key of the grouping, in order, with its sums, the number of sagas among them."""
        pipeline = [
            {"$match": query},
            *stages,
            {"$group": {"_id": group, "sagas": {"$sum": 1}, **(sums or {})}},
            {"$sort": {f"_id.{name}": 1 for name in group}},
        ]
        async with await self._sagas.aggregate(pipeline, allowDiskUse=True) as cursor:
            async for each in cursor:
                yield each.pop("_id"), each


def _quantiles(histogram: Counter[int]) -> Durations:
    """By the nearest rank; the histogram is in order."""
    ranks = [math.ceil(quantile * histogram.total()) for quantile in _QUANTILES]
    found: list[float] = []
    seen = 0
    for duration_ms, count in histogram.items():
        seen += count
        while len(found) < len(ranks) and seen >= ranks[len(found)]:
            found.append(duration_ms / 1000)
    return Durations(*found)
