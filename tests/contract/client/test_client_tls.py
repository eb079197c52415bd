"""The client and sagactl over TLS, with a certificate for localhost that is of use to tests alone."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from support.sagactl import Sagactl
from support.scripted_peer import Peer, serving

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad_client import Backoff, Client, Unavailable

CERTIFICATE = Path(__file__).parent / "tls" / "cert.pem"
KEY = Path(__file__).parent / "tls" / "key.pem"
GOT = pb.GetSagaResponse(saga=saga_pb2.Saga(saga_id="s"))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    credentials = grpc.ssl_server_credentials([(KEY.read_bytes(), CERTIFICATE.read_bytes())])
    async with serving(Peer(deque([GOT])), credentials=credentials) as peer:
        yield peer


async def test_credentials_reach_a_server_with_tls(peer: Peer) -> None:
    async with Client(peer.address, tls=grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())) as client:
        assert (await client.get("s")).saga_id == "s"


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "the system's certificates"])
async def test_a_server_that_is_not_trusted_is_not_talked_to(peer: Peer, tls: bool) -> None:
    async with Client(peer.address, tls=tls, backoff=Backoff(attempts=1)) as client:
        with pytest.raises(Unavailable):
            await client.get("s")
    assert peer.requests == []


async def test_sagactl_takes_the_certificates_of_a_file(peer: Peer) -> None:
    sagactl = Sagactl(peer.address)
    assert (await sagactl("get", "s", "--tls")).code == 3
    assert (await sagactl("get", "s", "--ca-file", str(CERTIFICATE))).code == 0
