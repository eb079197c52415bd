"""Store.create_definition, get_definition, list_definitions, set_definition_active and delete_definition."""

from datetime import datetime

import pytest
from support.storage import DEFINITION_ID, NAMESPACE, VERSION, Backend, definition, end, start

from sagad_server.domain.errors import AlreadyExists, FailedPrecondition, ResourceExhausted


async def test_a_version_is_kept_as_given_with_the_stores_own_create_time(backend: Backend) -> None:
    given = definition("refund", "1.2.3-rc.1", active=False, step_count=7, body=b"\0body")

    created = await backend.store.create_definition(given, 1_000, 10_000)

    assert (created.namespace, created.definition_id, created.version) == (NAMESPACE, "refund", "1.2.3-rc.1")
    assert (created.active, created.step_count, created.body) == (False, 7, b"\0body")
    assert created.create_time > given.create_time
    assert await backend.store.get_definition(NAMESPACE, "refund", "1.2.3-rc.1") == created


async def test_a_version_that_stands_is_returned_whatever_its_body_is_and_even_when_no_room_is_left(
    backend: Backend,
) -> None:
    first = await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION)

    again = await backend.store.create_definition(definition(body=b"other", active=False), 0, 0)

    assert again == first


@pytest.mark.parametrize(
    ("max_definitions", "max_steps", "bound"),
    [(1, 10_000, "validation.max_definitions allows 1"), (2, 5, "validation.max_steps allows 5")],
)
async def test_a_bound_over_all_namespaces_that_would_be_passed_is_named(
    backend: Backend, max_definitions: int, max_steps: int, bound: str
) -> None:
    other = definition(namespace="other", step_count=3)

    with pytest.raises(ResourceExhausted, match=bound):
        await backend.store.create_definition(other, max_definitions, max_steps)

    assert await backend.store.list_definitions("other") == []
    await backend.store.create_definition(other, 2, 6)


async def test_versions_are_listed_by_namespace_and_id(backend: Backend) -> None:
    for new in (definition(version="2.0.0"), definition("refund"), definition(namespace="other")):
        await backend.store.create_definition(new, 1_000, 10_000)

    async def listed(*words: str) -> list[tuple[str, str]]:
        return sorted((each.definition_id, each.version) for each in await backend.store.list_definitions(*words))

    assert await listed(NAMESPACE) == [("order", "1.0.0"), ("order", "2.0.0"), ("refund", "1.0.0")]
    assert await listed(NAMESPACE, "order") == [("order", "1.0.0"), ("order", "2.0.0")]
    assert await listed("other") == [("order", "1.0.0")]
    assert await listed(NAMESPACE, "missing") == []


async def test_a_version_is_deactivated_and_activated_and_nothing_else_changes(backend: Backend) -> None:
    before = await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION)
    assert before is not None

    inactive = await backend.store.set_definition_active(NAMESPACE, DEFINITION_ID, VERSION, active=False)
    assert inactive is not None
    assert not inactive.active
    assert await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION) == inactive

    assert await backend.store.set_definition_active(NAMESPACE, DEFINITION_ID, VERSION, active=True) == before


async def test_a_version_that_does_not_exist_is_none_or_false(backend: Backend) -> None:
    for where in (
        (NAMESPACE, DEFINITION_ID, "9.0.0"),
        (NAMESPACE, "missing", VERSION),
        ("other", DEFINITION_ID, VERSION),
    ):
        assert await backend.store.get_definition(*where) is None
        assert await backend.store.set_definition_active(*where, active=True) is None
        assert await backend.store.delete_definition(*where) is False


async def test_a_version_that_no_saga_names_is_deleted(backend: Backend) -> None:
    assert await backend.store.delete_definition(NAMESPACE, DEFINITION_ID, VERSION) is True

    assert await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION) is None
    assert await backend.store.delete_definition(NAMESPACE, DEFINITION_ID, VERSION) is False


async def test_a_deleted_version_comes_back_with_the_same_body_only(backend: Backend) -> None:
    first = await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION)
    assert first is not None
    for _ in range(2):
        await backend.store.delete_definition(NAMESPACE, DEFINITION_ID, VERSION)

        with pytest.raises(AlreadyExists, match=f"'{DEFINITION_ID}' {VERSION} was deleted") as refused:
            await backend.store.create_definition(definition(body=b"other"), 1_000, 10_000)
        assert refused.value.reason == "DEFINITION_EXISTS"
        assert await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION) is None

        again = await backend.store.create_definition(definition(body=first.body), 1_000, 10_000)
        assert again.body == first.body


async def test_a_version_that_a_saga_names_is_kept_until_the_saga_is_purged(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))

    with pytest.raises(FailedPrecondition, match=f"'{DEFINITION_ID}' version '{VERSION}'") as refused:
        await backend.store.delete_definition(NAMESPACE, DEFINITION_ID, VERSION)
    assert refused.value.reason == "DEFINITION_IN_USE"
    assert await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION) is not None

    await backend.purge_all()
    assert await backend.store.delete_definition(NAMESPACE, DEFINITION_ID, VERSION) is True


async def test_create_time_is_an_instant_with_a_zone(backend: Backend) -> None:
    found = await backend.store.get_definition(NAMESPACE, DEFINITION_ID, VERSION)

    assert found is not None
    assert isinstance(found.create_time, datetime)
    assert found.create_time.tzinfo is not None
