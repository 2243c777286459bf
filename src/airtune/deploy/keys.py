"""Who may speak: an authority of one's own, the server's certificate, a key for each device.

A folder holds::

    ca.key  ca.crt  server.key  server.crt      the authority, and the server that it vouches for
    nodes/NAME.key  nodes/NAME.pub              a device's key: carry .key there, and ca.crt
    revoked/NAME.pub                            devices that may no longer take part

Keys are elliptic curves of 384 bits (P-384), certificates X.509, by the ``cryptography`` library.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from airtune.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import CertificateBuilder, GeneralName, KeyUsage

_YEARS = timedelta(days=3 * 365)


def new(folder: Path, hosts: Sequence[str] = ()) -> None:
    """Make an authority and a certificate of a server that is reached as ``hosts``.

    It is reached as localhost and by this machine's name as well. Raises UserError for a folder
    that has keys.
    """
    _check_library()
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    if (folder / "ca.key").exists():
        raise UserError(f"keys: '{folder}' has keys already; name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    names = [*dict.fromkeys([*hosts, "localhost", "127.0.0.1", socket.gethostname()])]
    own = _certificate("airtune authority", authority, "airtune authority")
    own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signs = _usage(signs=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    own = own.add_extension(signs, critical=True).add_extension(identifier, critical=False)
    issued = _certificate("airtune server", server, "airtune authority")
    issued = issued.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    issued = issued.add_extension(
        x509.SubjectAlternativeName([_name(each) for each in names]), critical=False
    )
    issued = issued.add_extension(_usage(signs=False), critical=True)
    issued = issued.add_extension(
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    issued = issued.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
    )
    _write_key(folder / "ca.key", authority)
    _write_key(folder / "server.key", server)
    _write_certificate(folder / "ca.crt", own, authority)
    _write_certificate(folder / "server.crt", issued, authority)
    (folder / "nodes").mkdir(exist_ok=True)
    (folder / "revoked").mkdir(exist_ok=True)


def add(folder: Path, name: str) -> Path:
    """Make a device's key and return its file; raise UserError for a name that was used."""
    _check(folder)
    _check_library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise UserError("keys: a name has letters, digits, '.', '_' and '-' only, at most 64.")
    public, private = folder / "nodes" / f"{name}.pub", folder / "nodes" / f"{name}.key"
    if public.exists() or (folder / "revoked" / public.name).exists():
        raise UserError(f"keys: '{name}' has or had a key; choose another name.")
    key = ec.generate_private_key(ec.SECP384R1())
    _write_key(private, key)
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    public.write_bytes(key.public_key().public_bytes(*openssh) + b"\n")
    return private


def revoke(folder: Path, name: str) -> None:
    """Let a device take part no longer; a server that runs notices it before its next round."""
    _check(folder)
    public = folder / "nodes" / f"{name}.pub"
    if not public.exists():
        known = ", ".join(sorted(file.stem for file in registered(folder))) or "none"
        raise UserError(f"keys: there is no device '{name}'; there are: {known}.")
    public.replace(folder / "revoked" / public.name)
    (folder / "nodes" / f"{name}.key").unlink(missing_ok=True)


def registered(folder: Path) -> list[Path]:
    """Return the public keys of devices that may take part, by name."""
    return sorted((folder / "nodes").glob("*.pub"))


def _check_library() -> None:
    if find_spec("cryptography") is None:
        raise UserError("keys: these need a library that is missing; install airtune[flower].")


def _check(folder: Path) -> None:
    if not (folder / "ca.crt").is_file():
        raise UserError(f"keys: '{folder}' has no keys; make them by airtune keys new {folder}.")


def _certificate(
    subject: str,
    key: EllipticCurvePrivateKey,
    issuer: str,
) -> CertificateBuilder:
    from cryptography import x509

    def named(title: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, title)])

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks of devices differ
        .not_valid_after(now + _YEARS)
    )


def _usage(signs: bool) -> KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: EllipticCurvePrivateKey) -> None:
    from cryptography.hazmat.primitives import serialization

    data = key.private_bytes(
        serialization.Encoding.PEM,
        # What Flower reads of a node; OpenSSL reads the other.
        serialization.PrivateFormat.OpenSSH
        if path.parent.name == "nodes"
        else serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # Made unreadable for others before it has content.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _write_certificate(
    path: Path, builder: CertificateBuilder, signer: EllipticCurvePrivateKey
) -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    signed = builder.sign(signer, hashes.SHA384())
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
