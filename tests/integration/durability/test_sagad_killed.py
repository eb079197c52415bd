"""kill -9 of sagad: nothing acknowledged is lost, and it moves again at once."""

import asyncio
import time
from pathlib import Path

from support.keeper import keeping
from support.load import Load
from support.processes import sagad_process

from sagad.v1.saga_pb2 import Saga


async def test_after_kill_9_and_restart_200_sagas_in_flight_end_within_seconds(folder: Path, postgres_dsn: str) -> None:
    async with keeping(delay_s=0.3) as keeper:
        with sagad_process(folder, postgres_dsn, {"keeper": keeper.address}) as sagad:
            load = Load(sagad.address, keeper)
            async with load.client:
                await load.prepare()
                await load.start()
                sagad.kill()
                await asyncio.sleep(0.5)  # what participants do meanwhile goes unheard
                keeper.delay_s = 0.0
                calls = keeper.calls
                keeper.called.clear()
                began = time.monotonic()
                sagad.start(wait=False)
                await asyncio.wait_for(keeper.called.wait(), 30)
                first_s = time.monotonic() - began
                await load.check()
                all_s = time.monotonic() - began
    assert keeper.calls > calls
    print(f"first call {first_s:.2f} s after the restart, all {len(load.ids)} sagas ended after {all_s:.2f} s")
    assert first_s < 2, "1 s on a quiet machine; this one may be busy"
    assert all_s < 5, "3 s on a quiet machine"


async def test_a_stream_of_starts_goes_on_through_kills_and_starts_each_saga_once(
    folder: Path, postgres_dsn: str
) -> None:
    async with keeping() as keeper:
        with sagad_process(folder, postgres_dsn, {"keeper": keeper.address}) as sagad:
            load = Load(sagad.address, keeper)
            async with load.client:
                await load.prepare()
                requests = [load.request(saga_id) for saga_id in load.ids]
                told: list[str] = []
                async for saga_id, result, _ in load.client.start_many(requests, concurrency=20):
                    assert isinstance(result, Saga), result
                    told.append(saga_id)
                    if len(told) in (50, 120):  # 20 are under way, sent or durable or answered and not yet told
                        sagad.kill()
                        sagad.start(wait=False)
                assert sorted(told) == load.ids
                await load.check()


async def test_killed_again_and_again_while_it_recovers(folder: Path, postgres_dsn: str) -> None:
    async with keeping(delay_s=0.02) as keeper:
        with sagad_process(folder, postgres_dsn, {"keeper": keeper.address}) as sagad:
            load = Load(sagad.address, keeper)
            async with load.client:
                await load.prepare()
                await load.start()
                for _ in range(4):
                    sagad.kill()
                    keeper.called.clear()
                    sagad.start(wait=False)
                    await asyncio.wait_for(keeper.called.wait(), 30)
                await load.check()


async def test_sigterm_finishes_calls_in_flight_and_leaves_the_rest_to_the_next_start(
    folder: Path, postgres_dsn: str
) -> None:
    async with keeping(delay_s=0.5) as keeper:
        with sagad_process(folder, postgres_dsn, {"keeper": keeper.address}) as sagad:
            load = Load(sagad.address, keeper)
            async with load.client:
                await load.prepare()
                await load.start()
                assert await asyncio.to_thread(sagad.terminate) == 0
                keeper.delay_s = 0.0
                sagad.start(wait=False)
                await load.check()
                sagas = [await load.client.get(saga_id) for saga_id in load.ids[:20]]
    assert not any(step.may_have_happened for saga in sagas for step in saga.steps), "a clean stop leaves no doubt"


async def test_of_two_processes_with_one_name_the_first_ends_with_a_message(folder: Path, postgres_dsn: str) -> None:
    other = folder / "other"
    other.mkdir()
    node: dict[str, object] = {"name": "twin", "lease": "2s"}
    async with keeping() as keeper:
        to_keeper = {"keeper": keeper.address}
        with (
            sagad_process(folder, postgres_dsn, to_keeper, node=node) as first,
            sagad_process(other, postgres_dsn, to_keeper, node=node) as second,
        ):
            assert first._child is not None
            assert await asyncio.to_thread(first._child.wait, 60) == 1
            assert "node.name" in first.log()
            assert second.serving()


async def test_a_node_that_dies_is_replaced_by_another(folder: Path, postgres_dsn: str) -> None:
    other = folder / "other"
    other.mkdir()
    async with keeping(delay_s=0.2) as keeper:
        to_keeper = {"keeper": keeper.address}
        one: dict[str, object] = {"name": "one", "lease": "2s"}
        two: dict[str, object] = {"name": "two", "lease": "2s"}
        with (
            sagad_process(folder, postgres_dsn, to_keeper, node=one) as first,
            sagad_process(other, postgres_dsn, to_keeper, node=two) as second,
        ):
            load = Load(first.address, keeper)
            async with load.client:
                await load.prepare()
                await load.start()
                first.kill()
            survivor = Load(second.address, keeper)
            async with survivor.client:
                await survivor.check()
