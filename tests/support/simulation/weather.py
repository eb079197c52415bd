"""How bad the world of a seed is: each seed has other faults, some of them none, some often."""

from dataclasses import dataclass
from random import Random

from support.definitions import PARTICIPANTS

_MOST = {
    "slow_store": 0.3,
    "stuck_store": 0.02,
    "commit_before": 0.15,
    "commit_after": 0.12,
    "commit_late": 0.06,
    "read_before": 0.08,
    "read_after": 0.04,
    "not_sent": 0.08,
    "lost_call": 0.12,
    "late_call": 0.25,
    "doubled_call": 0.1,
    "lost_answer": 0.15,
    "turned_away": 0.12,
    "hang": 0.06,
    "refuse": 0.12,
    "refuse_for_now": 0.15,
    "pending": 0.15,
    "forget": 0.3,
    "answer_twice": 0.15,
    "unstorable": 0.02,
    "slow_reader": 0.3,
    "slow_stream": 0.1,
    "broken_stream": 0.05,
    "closing_stream": 0.02,
    "doubled_answer": 0.1,
}
_NODE_FAULTS = ("kill", "freeze", "partition", "outage", "drain")


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares of faults, how often nodes are disturbed, how often administrators are at work, and who has sessions."""

    shares: dict[str, float]
    node_faults: list[str]
    every_s: float
    edit_every_s: float | None
    purge_every_s: float | None
    sessions: list[str]
    """Participants that have them."""

    @classmethod
    def of(cls, chance: Random) -> "Weather":
        shares = {name: most * chance.choice([0.0, 0.3, 1.0]) for name, most in _MOST.items()}
        faults = [name for name in _NODE_FAULTS if chance.random() < 0.6]
        edit_every_s, purge_every_s = chance.choice([None, 1.0, 3.0]), chance.choice([None, 0.5, 3.0])
        every_s = chance.choice([2.0, 5.0])
        sessions = [name for name in PARTICIPANTS if chance.random() < 0.5]
        return cls(shares, faults, every_s, edit_every_s, purge_every_s, sessions)


class Sky:
    """Whether a fault strikes now."""

    def __init__(self, weather: Weather, chance: Random) -> None:
        self._shares = weather.shares
        self.chance = chance
        self.calm = False

    def strikes(self, fault: str) -> bool:
        return not self.calm and self.chance.random() < self._shares[fault]
