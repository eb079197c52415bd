"""The common reader of the journal: how often it reads, for whom, and what it does when it cannot."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from support.storage import DEFINITION_ID, batch, definition, end, start, step
from support.world import VirtualClock

from sagad_server.domain.errors import OutOfRange, ResourceExhausted, Unavailable
from sagad_server.engine.follower import Follower
from sagad_server.engine.journal import _MOST_TOLD_PER_S, Journal
from sagad_server.engine.watch import Watches
from sagad_server.storage.journal import Cursor, JournalPage, JournalRow
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.selection import SagaFilter, Selectable, selects

BOUND = 4
MAX_WATCHES = 100


class CountedStore(MemoryStore):
    """Counts the reads of the journal, and fails them where the test says."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.reads: list[float] = []
        self.failures: list[Exception] = []
        self.clock = VirtualClock()

    async def read_journal(self, after: Cursor, limit: int) -> JournalPage:
        self.reads.append(self.clock.now_s)
        if self.failures:
            raise self.failures.pop(0)
        return await super().read_journal(after, limit)


class Node:
    """A reader on a virtual clock, over a store to which the test commits."""

    def __init__(self) -> None:
        self.store = CountedStore(MemoryDatabase())
        self.clock = self.store.clock
        self.tasks: list[asyncio.Task[None]] = []
        self.watches = Watches(self.store, self.clock, self.spawn, {}, MAX_WATCHES, BOUND)
        self.journal = Journal(self.store, self.clock, self.watches, self.spawn, BOUND)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def follow(self, namespace: str = "default", **selection: Any) -> Follower:
        follower = await self.journal.follow(namespace, SagaFilter(**selection))
        await self.advance(0)
        return follower

    async def commit(self, *writes: Any, here: bool = True) -> None:
        await self.store.commit(batch(*writes))
        if here:
            self.journal.wake()

    async def advance(self, seconds: float) -> None:
        """Lets time pass, with all that happens in it."""
        until_s = self.clock.now_s + seconds
        await self._settle()
        while self.clock.fire_next(until_s):
            await self._settle()

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def reads_in(self, seconds: float) -> int:
        return sum(at > self.clock.now_s - seconds for at in self.store.reads)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    await node.store.open("node")
    await node.store.create_definition(definition(), 1_000, 10_000)
    yield node
    for task in node.tasks:
        task.cancel()
    for ended in await asyncio.gather(*node.tasks, return_exceptions=True):
        assert ended is None or isinstance(ended, asyncio.CancelledError)


def taken(follower: Follower) -> list[tuple[str, int]]:
    return [name(then.row) for then in follower.take(1_000)]


def name(row: JournalRow) -> tuple[str, int]:
    return row.event.saga_id, row.event.revision


async def test_a_commit_of_this_node_is_read_at_once(node: Node) -> None:
    follower = await node.follow()
    await node.advance(10)
    await node.commit(start("a"))
    await node.advance(0)
    assert taken(follower) == [("a", 1)]


async def test_a_commit_of_another_node_is_read_within_a_quarter_of_a_second(node: Node) -> None:
    follower = await node.follow()
    await node.advance(10)
    await node.commit(start("a"), here=False)
    await node.advance(0.25)
    assert taken(follower) == [("a", 1)]


async def test_a_storm_of_commits_is_read_together_for_all_followers(node: Node) -> None:
    followers = [await node.follow() for _ in range(3)]
    await node.advance(10)
    seen: list[list[tuple[str, int]]] = [[], [], []]
    for number in range(1_000):
        await node.commit(start(f"{number}"))
        await node.advance(0.001)
        for rows, follower in zip(seen, followers, strict=True):
            rows += taken(follower)
    assert node.reads_in(1) <= 51
    await node.advance(1)
    for rows, follower in zip(seen, followers, strict=True):
        rows += taken(follower)
        assert rows == [(f"{number}", 1) for number in range(1_000)]


async def test_where_nothing_happens_four_reads_a_second_are_enough(node: Node) -> None:
    await node.follow()
    await node.advance(10)
    assert node.reads_in(5) <= 20


async def test_nobody_reads_where_nobody_follows(node: Node) -> None:
    follower = await node.follow()
    await node.advance(1)
    node.journal.unfollow(follower)
    await node.advance(1)
    await node.commit(start("a"))
    await node.advance(10)
    assert node.reads_in(10) == 0
    again = await node.follow()
    await node.commit(step("a", 2))
    await node.advance(1)
    assert taken(again) == [("a", 2)]


async def test_a_follower_gets_what_it_wants_and_knows_how_far_that_goes(node: Node) -> None:
    follower = await node.follow(labels={"region": "north"})
    for saga, region in zip("abc", ("south", "north", "west"), strict=True):
        await node.commit(start(saga, labels={"region": region}))
    await node.advance(1)
    assert taken(follower) == [("b", 1)]
    assert follower.head == await node.store.journal_end()


async def test_each_follower_gets_what_its_filter_selects_whatever_the_others_want(node: Node) -> None:
    selections: list[dict[str, Any]] = [
        {},
        {"definition_id": DEFINITION_ID},
        {"definition_id": "other"},
        {"labels": {"all": "x"}},
        {"labels": {"all": "x", "region": "north"}},
        {"labels": {"all": "x", "region": "south"}},
        {"labels": {"region": "north"}, "definition_id": "other"},
    ]
    wanted = ["abc", "abc", "", "abc", "ac", "b", ""]
    followers = [await node.follow(**selection) for _ in "ab" for selection in selections]
    for saga, region in zip("abc", ("north", "south", "north"), strict=True):
        await node.commit(start(saga, labels={"all": "x", "region": region}))
    await node.advance(1)
    assert ["".join(saga for saga, _ in taken(follower)) for follower in followers] == wanted * 2
    for follower in followers[:7]:
        node.journal.unfollow(follower)
    await node.commit(start("d", labels={"all": "x", "region": "south"}))
    await node.advance(1)
    assert ["".join(saga for saga, _ in taken(follower)) for follower in followers[7:]] == [
        "d",
        "d",
        "",
        "d",
        "",
        "d",
        "",
    ]


async def test_those_that_want_the_same_share_it_and_others_filters_are_not_asked(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[SagaFilter] = []

    def counted(selection: SagaFilter, then: Selectable) -> bool:
        held.append(selection)
        return selects(selection, then)

    monkeypatch.setattr("sagad_server.engine.audience.selects", counted)
    tenants = [await node.follow(labels={"env": "production", "tenant": f"{n}"}) for n in range(MAX_WATCHES - 1)]
    twin = await node.follow(labels={"tenant": "1", "env": "production"})
    await node.commit(start("a", labels={"tenant": "1", "env": "production"}))
    await node.advance(1)
    (then,), (same,) = tenants[1].take(9), twin.take(9)
    assert then is same
    assert len(held) <= 2, "one for the tenant, and one for the filter that came first, when all labels were alike"
    assert all(not follower.take(9) for follower in tenants)


async def test_one_that_begins_while_a_page_is_handed_out_begins_behind_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagad_server.engine.journal._TURN", 1)
    first = await node.follow()
    for saga in "abc":
        await node.commit(start(saga))
    progress = node.journal._progress
    assert progress is not None
    for _ in range(100):
        if progress.read > progress.told:
            break
        await asyncio.sleep(0)
        node.clock.fire_next(node.clock.now_s + 1)
    late = await node.journal.follow("default", SagaFilter())
    assert late.since == await node.store.journal_end() > late.head
    await node.commit(start("d"))
    await node.advance(1)
    assert (taken(first), taken(late)) == ([(saga, 1) for saga in "abcd"], [("d", 1)])


async def test_many_followers_are_told_more_at_once_and_less_often(node: Node) -> None:
    followers = [await node.follow() for _ in range(MAX_WATCHES)]
    seen: list[list[tuple[str, int]]] = [[] for _ in followers]
    await node.advance(10)
    for number in range(1_000):
        await node.commit(start(f"{number}"))
        await node.advance(0.001)
        for rows, follower in zip(seen, followers, strict=True):
            rows += taken(follower)
    assert node.reads_in(1) <= 1 + _MOST_TOLD_PER_S / MAX_WATCHES
    await node.advance(0.25)
    for rows, follower in zip(seen, followers, strict=True):
        assert [*rows, *taken(follower)] == [(f"{number}", 1) for number in range(1_000)]


async def test_a_follower_that_is_too_slow_keeps_the_newest_and_knows_since_when(node: Node) -> None:
    slow = await node.follow()
    beginning = slow.since
    for number in range(BOUND):
        await node.commit(start(f"{number}"))
    await node.advance(1)
    assert slow.since == beginning
    last = await node.store.journal_end()
    await node.commit(start("new"))
    await node.advance(1)
    assert slow.since == last
    assert taken(slow) == [("new", 1)]
    rest = await node.journal.read(beginning)
    assert [name(row) for row in rest.rows if row.cursor <= slow.since] == [(f"{n}", 1) for n in range(BOUND)]


async def test_a_store_that_is_away_for_a_moment_delays_and_loses_nothing(node: Node) -> None:
    follower = await node.follow()
    node.store.failures = [Unavailable("away")] * 4
    await node.commit(start("a"))
    await node.advance(2)
    assert taken(follower) == [("a", 1)]


async def test_a_store_that_stays_away_is_told_of_and_asked_no_more(node: Node) -> None:
    follower = await node.follow()
    node.store.failures = [Unavailable("away")] * 100
    await node.advance(10)
    with pytest.raises(Unavailable):
        follower.take(1)
    assert len(node.store.failures) >= 90


@pytest.mark.parametrize("error", [OutOfRange("gone"), ZeroDivisionError("a bug")])
async def test_what_the_reader_fails_with_ends_the_streams_and_not_the_node(node: Node, error: Exception) -> None:
    follower = await node.follow()
    node.store.failures = [error]
    await node.advance(1)
    await follower.ready()
    with pytest.raises(type(error)):
        follower.take(1)
    assert await node.follow() is not None


async def test_one_that_was_told_of_a_failure_gets_nothing_from_behind_the_gap(node: Node) -> None:
    follower = await node.follow()
    node.store.failures = [OutOfRange("gone")]
    await node.advance(1)
    await node.commit(start("missed"))
    again = await node.follow()
    await node.commit(start("a"))
    await node.advance(1)
    assert taken(again) == [("a", 1)]
    with pytest.raises(OutOfRange):
        follower.take(1)


async def test_those_who_miss_what_is_purged_are_told(node: Node) -> None:
    follower = await node.follow()
    other = await node.follow("other")
    await node.commit(start("a"), here=False)
    await node.commit(end("a", 2), here=False)
    node.store.database.journal.purge({("default", "a")})
    await node.advance(1)
    with pytest.raises(OutOfRange, match="'default'"):
        follower.take(1)
    assert other.take(1) == []


async def test_followers_count_as_watches(node: Node) -> None:
    followers = [await node.follow() for _ in range(MAX_WATCHES)]
    with pytest.raises(ResourceExhausted):
        await node.follow()
    node.journal.unfollow(followers[0])
    assert node.watches.count == MAX_WATCHES - 1
    await node.follow()


async def test_one_that_cannot_begin_is_not_counted(node: Node) -> None:
    node.store.die()
    with pytest.raises(Unavailable):
        await node.follow()
    assert node.watches.count == 0
