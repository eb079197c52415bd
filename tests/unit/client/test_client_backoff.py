import time
import uuid

import pytest

from sagad_client.backoff import Backoff
from sagad_client.ids import new_saga_id


def test_pauses_grow_to_the_cap_and_jitter_takes_all_of_them() -> None:
    backoff = Backoff(initial_s=0.1, max_s=1.0, multiplier=2.0)
    assert [backoff.pause_s(failures, None, lambda: 1.0) for failures in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.pause_s(3, None, lambda: 0.0) == 0.0
    assert backoff.pause_s(3, None, lambda: 0.5) == 0.2


def test_retry_info_goes_before_the_pause_even_above_the_cap() -> None:
    backoff = Backoff(initial_s=0.1, max_s=1.0)
    assert backoff.pause_s(1, 7.0, lambda: 0.0) == 7.0
    assert backoff.pause_s(9, 7.0, lambda: 1.0) == 7.1


def test_the_thousandth_pause_is_still_a_number() -> None:
    assert Backoff(multiplier=10.0).pause_s(1000, None, lambda: 1.0) == 5.0


@pytest.mark.parametrize("arguments", [{"attempts": 0}, {"initial_s": -1.0}, {"max_s": -1.0}, {"multiplier": 0.5}])
def test_a_senseless_backoff_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="attempts are at least 1"):
        Backoff(**arguments)  # type: ignore[arg-type]


def test_saga_ids_are_uuids_of_version_7_that_carry_their_time() -> None:
    before = time.time_ns() // 1_000_000
    identifier = uuid.UUID(new_saga_id())
    after = time.time_ns() // 1_000_000
    assert (identifier.version, identifier.variant) == (7, uuid.RFC_4122)
    assert before <= identifier.int >> 80 <= after


def test_saga_ids_do_not_repeat() -> None:
    assert len({new_saga_id() for _ in range(10_000)}) == 10_000
