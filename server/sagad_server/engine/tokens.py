"""Completion tokens: what a participant shows to CompleteStep.

An HMAC-SHA-256 over uid, step, direction and generation, with a key that is made once and kept in the database, so
that a token outlives restarts and nobody can make one up.
"""

import base64
import hashlib
import hmac
from uuid import UUID

from sagad_server.domain.saga import Saga
from sagad_server.domain.states import Direction


class Tokens:
    """Makes and reads completion tokens."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.new(secret, digestmod=hashlib.sha256)

    def make(self, uid: UUID, step: int, direction: Direction, generation: int) -> str:
        mac = self._key.copy()
        mac.update(b"%s/%d/%d/%d" % (uid.bytes, step, direction, generation))
        return base64.urlsafe_b64encode(mac.digest()[:24]).decode()

    def read(self, token: str, saga: Saga, step: int) -> tuple[Direction, int] | None:
        """(direction, generation) that the token is for; None if it is not one of this step."""
        found = None
        for generation in range(saga.steps[step].generation, 0, -1):
            for direction in Direction:
                made = self.make(saga.uid, step, direction, generation)
                if hmac.compare_digest(made.encode(), token.encode()):
                    found = direction, generation
        return found
