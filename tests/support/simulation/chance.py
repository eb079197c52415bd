"""Chance, as the engine wants it, from a seed."""

from random import Random
from uuid import UUID


class ChanceRandom:
    """The chance that a node is given."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def random(self) -> float:
        return self._chance.random()

    def uid(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128))
