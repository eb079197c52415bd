"""Three nodes under load, and every kind of fault there is, in an order by chance. Nothing is lost."""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.chaos.disk import can_mount
from support.chaos.faults import FAULTS
from support.chaos.judging import judge
from support.chaos.report import Strike, report, rows_of
from support.chaos.world import running_world
from support.postgres import database, new_folder

COUNT = int(os.environ.get("SAGAD_CHAOS_KILLS", "30"))
LEASE_S = 2
CLIENTS = 6


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


def chosen(chance: random.Random, kinds: list[str]) -> list[str]:
    """None comes a second time before all have come."""
    names: list[str] = []
    while len(names) < COUNT:
        names += chance.sample(kinds, len(kinds))
    return names[:COUNT]


@pytest.mark.timeout(3600)
async def test_nothing_is_lost_whatever_happens(
    folder: Path, postgres_server_dsn: str, say: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("SAGAD_CHAOS_SEED") or random.randrange(10**9))
    say(f"SAGAD_CHAOS_SEED={seed}, {COUNT} faults")
    chance = random.Random(seed)
    hindered = can_mount(folder)
    mounts = not hindered
    if hindered:
        say(f"the full disk is left out: {hindered}")
    kinds = [name for name in FAULTS if mounts or name != "disk full"]
    with database(postgres_server_dsn) as examples_dsn:
        async with running_world(
            folder, examples_dsn, chance, synchronous=True, small_disks=mounts, lease_s=LEASE_S
        ) as world:
            world.shop.open(CLIENTS)
            strikes = []
            for name in chosen(chance, kinds):
                await asyncio.sleep(chance.uniform(0.1, 1.0))
                began = datetime.now(UTC)
                await FAULTS[name].strike(world)
                strikes.append(Strike(name, began, datetime.now(UTC)))
            await world.shop.close()
            await world.serve()
            verdict = await judge(await world.shop.ends(), world.shop.acknowledged, examples_dsn)
        report(rows_of(strikes, verdict))
        assert verdict.lost == set()
        assert verdict.violations == []
        assert len(verdict.sagas) > COUNT
