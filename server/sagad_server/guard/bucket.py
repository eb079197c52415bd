"""The arithmetic of token buckets. Pure; `lua/lease.lua` does the same in Redis.

Source: the token bucket of J. Turner, "New directions in communications (or which way to the information age?)", IEEE
Communications Magazine 24 (10), 1986, as in RFC 3290, appendix A; its tokens are handed out by leases as of C. Gray and
D. Cheriton, "Leases", SOSP 1989.
"""

from dataclasses import dataclass
from math import ceil, floor

LEASE_US = 100_000
"""Tokens that are taken ahead lapse at the next multiple of it, by the bucket's clock."""
PAUSE_S = 0.01
"""An empty bucket is not asked again before: a few tokens at once cost less than each alone."""


@dataclass(frozen=True, slots=True)
class Rate:
    """In any time t at most `burst` + `per_second` * t."""

    per_second: float
    burst: int

    def pause_s(self, wait_s: float) -> float:
        """How long it is not worth asking again, where a token comes in `wait_s`. Nothing overflows meanwhile, though
        half of the burst may be held ahead, and just less than a token may be left."""
        return max(wait_s, min(PAUSE_S, (self.burst - self.burst // 2 - 1) / self.per_second))


@dataclass(frozen=True, slots=True)
class Grant:
    """What came of asking for tokens."""

    needed: int
    """To be used at once."""
    ahead: int
    lapse_us: int
    """Those ahead may be used for so long from now."""
    wait_us: int
    """Until the bucket has a token again; 0 if it has one."""


class Bucket:
    """Full at first. The instants that it is given are in microseconds, by one clock.

    Tokens that somebody holds ahead count as if they were still in it: it fills up to `burst` less those. So what is
    used of them late, together with what is taken then, stays within the rate, in whatever stretch of time.
    """

    __slots__ = ("_at_us", "_held", "_level", "rate")

    def __init__(self, rate: Rate, now_us: int) -> None:
        self.rate = rate
        self._level = float(rate.burst)
        self._at_us = now_us
        self._held = 0

    @property
    def state(self) -> tuple[float, int]:
        """The tokens in it and those that are held ahead, as of the last call."""
        return self._level, self._held

    def take(self, now_us: int) -> bool:
        """One token, if there is one: what `lease` does, at a third of its cost."""
        self._fill(now_us)
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def lease(self, now_us: int, need: int, ahead: int, returned: int = 0) -> Grant:
        """Takes up to `need` tokens, and of the rest up to `ahead`. `returned` were taken before, and are not used."""
        self._fill(now_us)
        self._level = min(self._room, self._level + returned)
        needed = min(need, floor(self._level))
        self._level -= needed
        ahead = min(ahead, self._to_be_held)
        self._level -= ahead
        self._held += ahead
        # One more, for whoever rounds it: who comes too early by that much has to wait once more.
        wait_us = 0 if self._level >= 1 else ceil((1 - self._level) / self.rate.per_second * 1_000_000) + 1
        return Grant(needed, ahead, LEASE_US - now_us % LEASE_US, wait_us)

    @property
    def _to_be_held(self) -> int:
        """Half of what there is, since others may come, or all that comes within a pause; and never more than half of
        the burst, since what is held keeps as much from coming."""
        rate = self.rate
        most = max(floor(self._level / 2), min(floor(self._level), floor(rate.per_second * PAUSE_S)))
        return max(0, min(most, rate.burst // 2 - self._held))

    def _fill(self, now_us: int) -> None:
        if self._held:
            lapse_us = self._at_us - self._at_us % LEASE_US + LEASE_US
            if now_us >= lapse_us:
                self._fill_until(lapse_us)
                self._held = 0
        self._fill_until(now_us)

    def _fill_until(self, until_us: int) -> None:
        """A clock that was put back fills nothing."""
        elapsed_us = max(0, until_us - self._at_us)
        self._level = min(self._room, self._level + elapsed_us / 1_000_000 * self.rate.per_second)
        self._at_us = until_us

    @property
    def _room(self) -> int:
        return self.rate.burst - self._held
