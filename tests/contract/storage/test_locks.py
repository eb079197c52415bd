"""Resource locks: Store.commit with `takes`, `queues_for` and `gives_back`, `grant` and `locks`."""

import asyncio

from support.storage import Backend, batch, end, key, start, step

from sagad_server.storage.locks import Holder, LockId


def lock(name: str) -> LockId:
    return "default", name


async def holder_of(backend: Backend, name: str) -> str:
    holders = await backend.store.grant([lock(name)])
    return holders[0].saga_id if holders else ""


async def test_a_saga_is_written_with_its_locks_where_they_are_free(backend: Backend) -> None:
    committed = await backend.store.commit(batch(start("a", takes=("x", "y"))))

    assert committed.keys == {key("a")}
    assert not committed.held_up
    tokens = committed.lock_tokens[key("a")]
    assert tokens.keys() == {"x", "y"}
    assert (await backend.load("a")).lock_tokens == tokens
    assert (await backend.store.resolve([key("a")]))[key("a")].lock_tokens == tokens


async def test_a_saga_is_not_written_where_another_holds_one_of_its_locks(backend: Backend) -> None:
    await backend.commit(start("a", takes=("y",)))

    committed = await backend.store.commit(batch(start("b", takes=("x", "y")), start("c"), start("d", takes=("z",))))

    assert committed.keys == {key("c"), key("d")}
    assert committed.held_up == {key("b")}
    assert await backend.store.load(key("b")) is None
    assert await holder_of(backend, "x") == ""  # nothing of a saga is taken that is not written
    assert await holder_of(backend, "z") == "d"


async def test_a_saga_is_not_written_where_another_waits_for_its_lock(backend: Backend) -> None:
    await backend.commit(start("a", queues_for="x"))

    committed = await backend.store.commit(batch(start("b", takes=("x",))))

    assert committed.held_up == {key("b")}


async def test_locks_of_one_name_in_two_namespaces_are_two_locks(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x",)))

    holders = await backend.store.grant([("default", "x"), ("other", "x")])

    assert [(holder.lock, holder.saga_id) for holder in holders] == [(("default", "x"), "a")]


async def test_a_lock_goes_to_who_has_waited_longest_with_a_higher_token(backend: Backend) -> None:
    first = (await backend.store.commit(batch(start("a", takes=("x",))))).lock_tokens[key("a")]["x"]
    for saga in ("d", "b", "c"):
        await backend.commit(start(saga, queues_for="x"))
    order, tokens = [], [first]
    for holder in ("a", "d", "b", "c"):
        assert await backend.store.grant([lock("x")]) == [Holder(lock("x"), holder, tokens[-1], granted=False)]
        await backend.commit(end(holder, 2, gives_back=True))
        for granted in await backend.store.grant([lock("x")]):
            assert granted.granted
            order.append(granted.saga_id)
            tokens.append(granted.fencing_token)

    assert order == ["d", "b", "c"]
    assert tokens == sorted(set(tokens))


async def test_the_end_of_a_saga_gives_back_what_it_holds_and_what_it_waits_for(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x",)), start("b", takes=("y",)))
    await backend.commit(step("a", 2, queues_for="y"), start("c", queues_for="x"), start("d", queues_for="y"))

    await backend.commit(end("a", 3, gives_back=True))

    assert await holder_of(backend, "x") == "c"
    await backend.commit(end("b", 2, gives_back=True))
    assert await holder_of(backend, "y") == "d"
    assert await backend.store.locks([key("a")]) == {}


async def test_the_end_of_a_saga_tells_which_of_its_locks_others_wait_for(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x", "y")), start("b", takes=("z",)), start("other", takes=("v",)))
    await backend.commit(step("a", 2, queues_for="z"), step("other", 2, queues_for="x"))
    await backend.commit(start("c", queues_for="z"))

    nobody = await backend.store.commit(batch(step("b", 2)))
    told = await backend.store.commit(batch(end("a", 3, gives_back=True), end("b", 9, gives_back=True)))
    alone = await backend.store.commit(batch(end("other", 3, gives_back=True)))

    assert nobody.awaited == set()
    assert told.awaited == {lock("x"), lock("z")}  # y is nobody's, and the end of b was not written
    assert alone.awaited == set()


async def test_a_guard_that_fails_takes_and_gives_back_nothing(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x",)), start("b"))

    without_definition = start("a2", definition_id="none", takes=("y",))
    committed = await backend.store.commit(
        batch(end("a", 5, gives_back=True), step("b", 7, queues_for="x"), without_definition)
    )

    assert not committed.keys
    assert not committed.held_up
    assert await holder_of(backend, "x") == "a"
    assert await holder_of(backend, "y") == ""
    assert await backend.store.locks([key("b")]) == {}


async def test_the_same_start_sent_again_takes_its_locks_once(backend: Backend) -> None:
    write = start("a", takes=("x",))
    first = await backend.store.commit(batch(write))

    second = await backend.store.commit(batch(write))

    assert not second.keys
    assert not second.held_up
    assert (await backend.load("a")).lock_tokens == first.lock_tokens[key("a")]


async def test_an_id_that_is_taken_takes_no_lock(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))

    committed = await backend.store.commit(batch(start("a", takes=("x",))))

    assert not committed.keys
    assert await holder_of(backend, "x") == ""


async def test_the_end_of_one_saga_and_the_start_of_the_next_may_stand_in_one_batch(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x",)))

    await backend.commit(end("a", 2, gives_back=True), start("b", queues_for="x"))

    assert await holder_of(backend, "x") == "b"


async def test_holder_and_waiters_can_be_seen(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x", "y")))
    for number in range(12):
        await backend.commit(start(f"w{number:02}", queues_for="x"))

    found = await backend.store.locks([key("a"), key("w03"), key("none")])

    assert found.keys() == {key("a"), key("w03")}
    x, y = found[key("a")]
    assert (x.name, x.holder, x.waiting_count) == ("x", "a", 12)
    assert x.waiting == [f"w{number:02}" for number in range(10)]
    assert x.take_time is not None
    assert (y.name, y.holder, y.waiting, y.waiting_count) == ("y", "a", [], 0)
    (waits,) = found[key("w03")]
    assert (waits.holder, waits.fencing_token, waits.take_time) == ("a", None, None)
    assert waits.ticket > x.ticket
    assert waits.request_time >= x.request_time


async def test_tickets_of_one_batch_are_in_the_order_of_its_writes(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x",)), start("m"), start("f"))
    order = ["k", "m", "b", "z", "f", "c"]
    writes = [step(saga, 2) if saga in "mf" else start(saga) for saga in order]
    for write in writes:
        write.queues_for = "x"

    await backend.commit(*writes)

    ((row,),) = (await backend.store.locks([key("a")])).values()
    assert row.waiting == order


async def test_locks_stay_when_a_saga_is_taken_over_or_parked(backend: Backend) -> None:
    await backend.commit(start("a", takes=("x",)), start("b", queues_for="x"))
    tokens = (await backend.load("a")).lock_tokens
    store, _ = await backend.restart()

    claimed = {loaded.row.saga_id: loaded.lock_tokens for loaded in await store.claim(10, [])}
    await store.park(key("a"), revision=1, epoch=2, reason=7, incident_id="1", event=b"event")

    assert claimed == {"a": tokens, "b": {}}
    assert await holder_of(backend, "x") == "a"


async def test_nodes_that_ask_at_once_make_one_holder(backend: Backend) -> None:
    one = backend.store
    two, _ = await backend.open("other")
    for number in range(20):
        await backend.commit(start(f"s{number}", queues_for="x"))
    ended = 0
    while ended < 20:
        answers = await asyncio.gather(*(store.grant([lock("x")]) for store in (one, two, one, two)))
        granted = [holder for holders in answers for holder in holders if holder.granted]
        assert len(granted) == 1, granted
        assert granted[0].saga_id == f"s{ended}"
        await backend.commit(end(granted[0].saga_id, 2, gives_back=True))
        ended += 1


async def test_many_locks_that_nodes_ask_for_at_once_are_all_granted(backend: Backend) -> None:
    one = backend.store
    two, _ = await backend.open("other")
    names = [f"x{number}" for number in range(40)]
    for place in range(4):
        await backend.commit(*(start(f"{name}-{place}", queues_for=name) for name in names))
    asked = [lock(name) for name in names]
    for place in range(4):
        answers = await asyncio.gather(*(store.grant(asked) for store in (one, two, one, two)))
        granted = [holder.saga_id for holders in answers for holder in holders if holder.granted]
        assert sorted(granted) == sorted(f"{name}-{place}" for name in names)
        await backend.commit(*(end(f"{name}-{place}", 2, gives_back=True) for name in names))


async def test_nodes_that_start_sagas_at_once_make_one_holder_of_each_lock(backend: Backend) -> None:
    one = backend.store
    two, _ = await backend.open("other")
    for number in range(30):
        names = (f"x{number}", f"y{number}")
        tries = (store.commit(batch(start(f"{node}{number}", takes=names))) for node, store in (("a", one), ("b", two)))
        answers = await asyncio.gather(*tries, return_exceptions=True)
        written = [each for each in answers if not isinstance(each, BaseException) and each.keys]
        assert len(written) == 1, answers
        holders = await one.grant([lock(name) for name in names])
        assert len({holder.saga_id for holder in holders}) == 1
