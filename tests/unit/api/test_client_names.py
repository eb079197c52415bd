"""Who a client is to rate limits."""

import pytest

from sagad_server.api.start_limits import client_name


@pytest.mark.parametrize(
    ("actor", "name"),
    [
        ("ipv4:10.0.0.7:50612", "10.0.0.7"),
        ("ipv6:%5B::1%5D:50612", "::1"),
        ("ipv6:[2001:db8:0::1]:50612", "2001:db8::1"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:50612", "10.0.0.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50612", "fe80::1%eth0"),
        ("unix:", "unix"),
        ("unix:/run/sagad.sock", "unix"),
        ("", ""),
    ],
)
def test_a_client_is_its_address_without_the_port(actor: str, name: str) -> None:
    assert client_name(actor) == name
