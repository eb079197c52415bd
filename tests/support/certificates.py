"""Certificates for servers and clients of the tests, made anew each time."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

_HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    ca: Path
    """The authority that has issued those of the server and of the client."""
    other_ca: Path
    """One that has issued none of them."""
    cert: Path
    key: Path
    """Of whoever is at 127.0.0.1."""
    client_cert: Path
    client_key: Path


def new_certificates(folder: Path) -> Certificates:
    """An authority, and what it has issued."""
    files = Certificates(
        *(folder / f"{name}.pem" for name in ("ca", "other-ca", "cert", "key", "client", "client-key"))
    )
    ca = trustme.CA()
    ca.cert_pem.write_to_path(files.ca)
    trustme.CA().cert_pem.write_to_path(files.other_ca)
    _write(ca.issue_cert(*_HOSTS), files.cert, files.key)
    _write(ca.issue_cert("sagad.example.com"), files.client_cert, files.client_key)
    return files


def _write(issued: trustme.LeafCert, cert: Path, key: Path) -> None:
    issued.cert_chain_pems[0].write_to_path(cert)
    private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    # As PKCS #8: Java reads no other format.
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(pem, pkcs8, plain))
