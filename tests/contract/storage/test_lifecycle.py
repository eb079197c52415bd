"""Store.secret, info, ping and close."""

from datetime import timedelta

import pytest
from support.storage import Backend, batch, key, start

from sagad_server.domain.errors import Unavailable
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Retryable


async def test_a_secret_is_made_once_and_kept(backend: Backend) -> None:
    made = await backend.store.secret("completion")

    assert len(made) == 32
    assert await backend.store.secret("completion") == made
    assert await backend.store.secret("other") != made
    store, _ = await backend.restart()
    assert await store.secret("completion") == made


async def test_the_store_knows_what_it_is(backend: Backend) -> None:
    info = await backend.store.info()

    assert info.replication in (1, 2, 3)
    assert info.schema_version >= 0
    assert isinstance(info.postgres_version, str)


async def test_an_open_store_answers_a_ping(backend: Backend) -> None:
    await backend.store.ping()


async def test_a_closed_store_is_unavailable_and_certain_not_to_have_written(backend: Backend) -> None:
    await backend.store.close()

    with pytest.raises(Retryable):
        await backend.store.commit(batch(start("a")))
    with pytest.raises(Retryable):
        await backend.store.resolve([key("a")])
    with pytest.raises(Unavailable):
        await backend.store.ping()
    with pytest.raises(Unavailable):
        await backend.store.load(key("a"))
    with pytest.raises(Unavailable):
        await backend.store.purge(None, SagaFilter(), timedelta(0), 1, dry_run=False)


async def test_close_twice_is_close_once(backend: Backend) -> None:
    await backend.store.close()
    await backend.store.close()
