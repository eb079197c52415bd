"""`sagactl report` over a real model, beside what the coordinator itself says."""

import math
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from support.projection_world import World
from support.sagactl import Result, Sagactl

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_pb2 import Saga

NOWHERE = "127.0.0.1:1"
"""No report asks a server of sagad."""


async def report(world: World, *arguments: str) -> Result:
    environment = {"SAGAD_MONGO__URL": world.mongo_url, "SAGAD_MONGO__DATABASE": world.database}
    return await Sagactl(NOWHERE)("report", *arguments, **environment)


def state(saga: Saga) -> str:
    return saga_pb2.SagaState.Name(saga.state).removeprefix("SAGA_STATE_")


def duration_s(saga: Saga) -> float:
    return (saga.end_time.ToDatetime() - saga.create_time.ToDatetime()).total_seconds()


def nearest_rank(values: list[float], quantile: float) -> float:
    return sorted(values)[math.ceil(quantile * len(values)) - 1]


async def failures(world: World, sagas: list[Saga]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Failed attempts, and sagas that had them, by day, definition, step and category."""
    attempts: Counter[tuple[str, ...]] = Counter()
    of_sagas: Counter[tuple[str, ...]] = Counter()
    for saga in sagas:
        mine: Counter[tuple[str, ...]] = Counter()
        async for event in world.client.events(saga.saga_id):
            day = f"{event.time.ToDatetime(UTC):%Y-%m-%d}"
            for change in event.changes:
                if change.HasField("failure"):
                    category = common_pb2.FailureCategory.Name(change.failure.category)
                    category = category.removeprefix("FAILURE_CATEGORY_")
                    mine[day, saga.definition_id, change.step_id, category] += 1
        attempts += mine
        of_sagas.update(mine.keys())
    return {key: (count, of_sagas[key]) for key, count in attempts.items()}


async def test_a_report_has_the_figures_that_can_be_counted_from_the_coordinator(world: World) -> None:
    async with world.projecting():
        await world.run_sagas(0)
        await world.steer()
        sagas = await world.sagas()
        await world.until_model_has(sagas)
    result = await report(world, "-o", "json")
    assert result.code == 0, result.err
    found = result.json

    by_day = Counter((f"{saga.create_time.ToDatetime(UTC):%Y-%m-%d}", state(saga)) for saga in sagas)
    assert {(row["day"], name): count for row in found["days"] for name, count in row["byState"].items()} == by_day
    by_definition = Counter((saga.definition_id, state(saga)) for saga in sagas)
    rows = {row["definitionId"]: row for row in found["definitions"]}
    assert {
        (each, name): count for each, row in rows.items() for name, count in row["byState"].items()
    } == by_definition
    assert rows["order"]["byState"] == {"COMPENSATED": 1, "SUCCEEDED": 3}
    assert rows["order"]["successRate"] == 0.75
    assert rows["stuck"]["byState"] == {"ABANDONED": 1, "PARKED": 3}
    assert rows["stuck"]["successRate"] == 0

    for definition_id, row in rows.items():
        durations = [
            duration_s(saga) for saga in sagas if saga.definition_id == definition_id and saga.end_time.seconds
        ]
        for name, quantile in (("durationP50", 0.5), ("durationP95", 0.95), ("durationP99", 0.99)):
            exact_s = nearest_rank(durations, quantile)
            assert float(row[name].removesuffix("s")) == pytest.approx(exact_s, rel=0.005, abs=0.001)

    reported = {
        (row["day"], row["definitionId"], row["stepId"], row["category"]): (row["failures"], row["sagas"])
        for row in found["failures"]
    }
    assert reported == await failures(world, sagas)
    assert len(reported) >= 3
    assert found["incomplete"] == 0
    await check_forms_and_filters(world)


async def check_forms_and_filters(world: World) -> None:
    plain = await report(world)
    assert ["order", "4", "3", "1", "0", "0", "0", "75.0%"] in [line[:8] for line in plain.lines]
    environment = {"SAGAD_MONGO__URL": world.mongo_url, "SAGAD_MONGO__DATABASE": world.database}
    table = await Sagactl(NOWHERE).in_terminal("report", **environment)
    assert table.code == 0
    assert "75.0%" in table.out

    only = (await report(world, "--definition", "order", "-o", "json")).json
    assert [row["definitionId"] for row in only["definitions"]] == ["order"]
    assert {row["definitionId"] for row in only["failures"]} == {"order"}
    tomorrow = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    for arguments in (
        ("--created-after", tomorrow),
        ("--created-before", "2020-01-01"),
        ("--namespace", "other"),
        ("--definition", '{"$ne": ""}'),
    ):
        empty = (await report(world, *arguments, "-o", "json")).json
        assert empty == {"definitions": [], "days": [], "failures": [], "incomplete": 0}
    long_ago = await report(world, "--created-after", "2020-01-01", "--created-before", tomorrow, "-o", "json")
    assert sum(row["started"] for row in long_ago.json["days"]) == 12


async def test_a_report_that_cannot_be_made_says_why() -> None:
    sagactl = Sagactl(NOWHERE)
    secret = "correct-horse"
    unnamed = await sagactl("report")
    assert (unnamed.code, unnamed.err.strip()) == (
        2,
        "--mongo-url, or SAGAD_MONGO__URL, must say where the read model is: mongodb://HOST:27017",
    )
    wrong = await sagactl("report", "--mongo-url", f"mongodb://sagad:{secret}:@db:x")
    assert wrong.code == 2
    assert wrong.err.startswith("--mongo-url: pymongo does not take it")
    away = await sagactl("report", "--mongo-url", f"mongodb://sagad:{secret}@127.0.0.1:1")
    assert away.code == 3
    assert away.err.startswith("MongoDB is away: 127.0.0.1:1")
    assert secret not in wrong.err + away.err


async def test_without_the_library_the_command_names_the_extra() -> None:
    hidden = "import sys; sys.modules['pymongo'] = None; from sagad_client.cli import main; main()"
    sagactl = Sagactl(NOWHERE)
    sagactl.words = (sys.executable, "-c", hidden)
    result = await sagactl("report", "--mongo-url", "mongodb://127.0.0.1:1")
    assert result.code == 2
    assert result.err.startswith("sagactl report needs the extra `mongo`: pip install 'sagad[mongo]'")
