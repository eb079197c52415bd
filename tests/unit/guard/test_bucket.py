"""Token buckets keep their rate, whoever takes what, and whenever it is used."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.buckets import most_above

from sagad_server.guard.bucket import LEASE_US, Bucket, Rate

RATES = st.builds(Rate, st.floats(0.5, 2000), st.integers(1, 500))
TIGHT_RATES = st.builds(Rate, st.floats(20, 400), st.integers(4, 40))
"""A few tokens too many would show."""
ASKS = st.tuples(
    st.sampled_from([0, 1_000, 10_000, 49_000, 98_000, 99_000, 100_000, 1_000_000]),  # microseconds since the last one
    st.sampled_from([0, 1, 3, 50]),  # needed
    st.sampled_from([0, 5, 50]),  # ahead
    st.sampled_from([0, 0.5, 1]),  # how late in their lease those ahead are used
    st.sampled_from([0, 0.5, 1]),  # how many of them are used; the others are returned
)
SLACK = 1e-6
"""Levels are floats."""


@given(TIGHT_RATES, st.sampled_from([0, 500, 50_000]), st.lists(ASKS, min_size=2, max_size=12))
@settings(max_examples=500)
def test_what_is_used_stays_within_the_rate_in_whatever_stretch_of_time(
    rate: Rate, begin_us: int, asks: list[tuple[int, int, int, float, float]]
) -> None:
    bucket, used_s, returned = Bucket(rate, begin_us), [], 0
    now_us = begin_us
    for pause_us, need, ahead, late, share in asks:
        now_us += pause_us
        grant = bucket.lease(now_us, need, ahead, returned)
        assert grant.needed <= need
        assert grant.ahead <= ahead
        used_ahead = int(grant.ahead * share)
        returned = grant.ahead - used_ahead
        used_us = now_us - begin_us + int(late * (grant.lapse_us - 1))
        used_s += [(now_us - begin_us) / 1e6] * grant.needed + [used_us / 1e6] * used_ahead
    assert most_above(used_s, rate.per_second) <= rate.burst + SLACK


@given(RATES, st.lists(ASKS, max_size=60))
def test_a_bucket_is_never_above_its_burst_nor_below_empty(
    rate: Rate, asks: list[tuple[int, int, int, float, float]]
) -> None:
    bucket, now_us = Bucket(rate, 0), 0
    for pause_us, need, ahead, _, _ in asks:
        now_us += pause_us
        bucket.lease(now_us, need, ahead)
        level, held = bucket.state
        assert 0 <= level <= rate.burst - held


@given(RATES, st.integers(0, 10**12))
def test_a_token_is_there_when_it_was_said_and_not_before(rate: Rate, now_us: int) -> None:
    bucket = Bucket(rate, now_us)
    wait_us = bucket.lease(now_us, rate.burst, 0).wait_us
    if wait_us > 3:
        assert bucket.lease(now_us + wait_us - 3, 1, 0).needed == 0
    assert bucket.lease(now_us + wait_us, 1, 0).needed == 1


@example(Rate(139, 3), 1, 1)
@given(RATES, st.integers(1, 50), st.integers(0, 50))
def test_who_asks_always_gets_the_whole_rate_though_others_hold_tokens(rate: Rate, need: int, ahead: int) -> None:
    bucket, now_us, got = Bucket(rate, 0), 0, 0
    for _ in range(500):
        grant = bucket.lease(now_us, need, ahead)
        got += grant.needed + grant.ahead
        if grant.wait_us:
            now_us += int(rate.pause_s(grant.wait_us / 1e6) * 1e6)  # it may lack a microsecond
    assert got >= (now_us - LEASE_US) / 1e6 * rate.per_second * 0.99 - 2


@given(RATES, st.lists(st.integers(0, 2_000_000), max_size=60))
def test_one_token_is_taken_where_a_lease_of_one_is_granted(rate: Rate, pauses_us: list[int]) -> None:
    one, other, now_us = Bucket(rate, 0), Bucket(rate, 0), 0
    for pause_us in pauses_us:
        now_us += pause_us
        assert one.take(now_us) == bool(other.lease(now_us, 1, 0).needed)
        assert one.state == other.state


def test_what_is_wanted_ahead_leaves_half_for_others() -> None:
    bucket = Bucket(Rate(1, 100), 0)
    assert bucket.lease(0, 20, 1000).ahead == 40
    assert bucket.lease(0, 40, 1000).needed == 40


def test_tokens_that_go_back_are_there_for_others() -> None:
    bucket = Bucket(Rate(0.001, 10), 0)
    assert bucket.lease(0, 10, 0).needed == 10
    assert bucket.lease(LEASE_US, 10, 0, returned=3).needed == 3


def test_a_clock_that_was_put_back_fills_nothing_and_stops_nothing() -> None:
    bucket = Bucket(Rate(10, 10), 10**12)
    assert bucket.lease(10**12, 10, 0).needed == 10
    assert bucket.lease(0, 10, 0).needed == 0
    assert bucket.lease(1_000_000, 20, 0).needed == 10
