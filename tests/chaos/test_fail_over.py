"""PostgreSQL fails over to its synchronous standby: what that costs."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from support.chaos.faults import FAULTS
from support.chaos.judging import judge
from support.chaos.report import Strike, report, rows_of
from support.chaos.world import running_world
from support.postgres import database, new_folder

from sagad_client import Backoff, Client, SagadError

FAIL_OVERS = max(1, int(os.environ.get("SAGAD_CHAOS_KILLS", "30")) // 10)
CLIENTS = 6
RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}
ONCE = Backoff(attempts=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


class Impatient:
    """A client that calls once, and remembers how it was answered."""

    def __init__(self, address: str) -> None:
        self.codes: Counter[grpc.StatusCode] = Counter()
        self._client = Client(address, backoff=ONCE, timeout_s=60)
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    async def call_until_stopped(self) -> None:
        async with self._client as client:
            number = 0
            while not self._stopped:
                number += 1
                saga_id = f"once-{id(self)}-{number}"
                for call in (
                    lambda saga_id=saga_id: client.start("order", {}, saga_id=saga_id),
                    lambda saga_id=saga_id: client.start("order", {}, saga_id=saga_id),
                    lambda: client.list(page_size=5).page(),
                    client.admin.nodes,
                ):
                    try:
                        await call()
                    except SagadError as error:
                        self.codes[error.code] += 1
                    else:
                        self.codes[grpc.StatusCode.OK] += 1


@pytest.mark.timeout(1200)
async def test_with_a_synchronous_standby_nothing_is_lost_and_clients_meet_only_what_they_may_repeat(
    folder: Path, postgres_server_dsn: str
) -> None:
    chance = random.Random(os.environ.get("SAGAD_CHAOS_SEED"))
    with database(postgres_server_dsn) as examples_dsn:
        async with running_world(folder, examples_dsn, chance, synchronous=True, small_disks=False, lease_s=2) as world:
            world.shop.open(CLIENTS)
            impatient = [Impatient(node.address) for node in world.nodes]
            calling = [asyncio.create_task(one.call_until_stopped()) for one in impatient]
            strikes = []
            for _ in range(FAIL_OVERS):
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                began = datetime.now(UTC)
                await FAULTS["PostgreSQL failed over"].strike(world)
                strikes.append(Strike("PostgreSQL failed over", began, datetime.now(UTC)))
            for one in impatient:
                one.stop()
            await asyncio.gather(*calling)
            await world.shop.close()
            verdict = await judge(await world.shop.ends(), world.shop.acknowledged, examples_dsn)
        report(rows_of(strikes, verdict))
        codes = sum((one.codes for one in impatient), Counter())
        print(f"answers: {dict(codes)}")
        assert codes.keys() - RETRYABLE == {grpc.StatusCode.OK}
        assert verdict.lost == set()
        assert verdict.violations == []
