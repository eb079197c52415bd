"""Where the server listens, and what it says if it cannot."""

from pathlib import Path

import grpc
import pytest

from sagad_server.api.server import ListenError, listen
from sagad_server.config_sections import Grpc


async def test_a_certificate_that_is_none_is_refused_with_a_message(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    server = grpc.aio.server()
    with pytest.raises(ListenError, match="cannot listen on"):
        listen(server, Grpc(address="127.0.0.1:0", tls_cert_file=broken, tls_key_file=broken), "127.0.0.1:0")
    await server.stop(None)
