"""A small certificate authority for the nodes of a lab or of a cluster without one, and a look at any node's files.

Files are PEM; keys are written for their owner only (0600), and nothing is ever half written. Who has an authority of
their own takes its certificates instead: DNS name = node name, for server and client authentication.

Source: RFC 5280 (profiles), RFC 5480 (P-256).
"""

from __future__ import annotations

import itertools
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mobikectl.cluster.codec import check_name
from mobikectl.errors import ConfigError
from mobikectl.transfer.credentials import check_private

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY_CERTIFICATE, AUTHORITY_KEY = "ca.pem", "ca.key"
NODE_CERTIFICATE, NODE_KEY = "node.pem", "node.key"
MAX_FILE = 1 << 18
MAX_CHAIN = 8
_EARLIER = timedelta(hours=1)
"""How far the clocks of the nodes may be apart."""


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """What a node needs, as PEM."""

    certificate: bytes
    key: bytes
    ca: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node's files say."""

    names: frozenset[str]
    not_before: datetime
    not_after: datetime
    issuer: str


def make_authority(directory: Path, cluster: str, days: int, now: datetime) -> Path:
    """Given a directory, the cluster's name, how long it is good for and the time, make an authority there.

    Return its certificate's file. Raise ConfigError: there is one, or the directory cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mobikectl cluster {check_name(cluster)}")])
    certificate = (
        _builder(name, name, key.public_key(), key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write(directory / AUTHORITY_KEY, _private(key), replace=False)
    write(directory / AUTHORITY_CERTIFICATE, _pem(certificate), replace=False)
    return directory / AUTHORITY_CERTIFICATE


def issue(directory: Path, node: str, days: int, now: datetime) -> NodeFiles:
    """Given an authority's directory, a node's name, how long it is good for and the time, make the node's files.

    Nothing is written. Raise ConfigError: there is no authority, or it ends before.
    """
    _require_authority(directory)
    check_private(directory / AUTHORITY_KEY)
    ca_pem = _read(directory / AUTHORITY_CERTIFICATE)
    ca = _certificates(directory / AUTHORITY_CERTIFICATE, ca_pem)[0]
    ca_key = _load_key(directory / AUTHORITY_KEY)
    if ca.not_valid_after_utc < now + timedelta(days=days):
        raise ConfigError(
            f"{directory}: the authority ends on {ca.not_valid_after_utc:%Y-%m-%d}, before the certificate would",
            hint="ask for fewer days, or make a new authority and give every node a new certificate",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_name(node))])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(name, ca.subject, key.public_key(), ca_key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(node)]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return NodeFiles(_pem(certificate), _private(key), ca_pem)


def install(files: NodeFiles, directory: Path, *, replace: bool) -> None:
    """Given a node's files and where they belong, write them. Raise ConfigError: there are some already."""
    write(directory / NODE_KEY, files.key, replace=replace)
    write(directory / NODE_CERTIFICATE, files.certificate, replace=replace)
    write(directory / AUTHORITY_CERTIFICATE, files.ca, replace=replace)


def check_renewable(directory: Path, node: str) -> None:
    """Given where a node's files are to be replaced, raise ConfigError when another node's are there.

    A certificate that cannot be read may be replaced.
    """
    path = directory / NODE_CERTIFICATE
    try:
        names = _names(_certificates(path, _read(path))[0])
    except ConfigError:
        return
    if node not in names:
        raise ConfigError(
            f"{path} is of {', '.join(sorted(names)) or 'nobody'}, not of {node}",
            hint=f"give --dir, and bring that folder to {node}",
        )


def read(certificate: Path, key: Path, ca: Path) -> NodeFiles:
    """Given the operator's files, return their content. Raise ConfigError."""
    return NodeFiles(_read(certificate), _read(key), _read(ca))


def inspect(certificate: Path, key: Path, ca: Path) -> Facts:
    """Given a node's files, return what they say. Raise ConfigError: they do not belong together or cannot be read."""
    chain = _certificates(certificate, _read(certificate))
    authorities = _certificates(ca, _read(ca))
    leaf = chain[0]
    if _load_key(key).public_key() != leaf.public_key():
        raise ConfigError(f"{key}: not the key of {certificate}", hint="`mobikectl cluster join` makes both")
    for one, above in itertools.pairwise(chain):
        if not _signed(one, above):
            raise ConfigError(
                f"{certificate}: its certificates do not follow each other",
                hint="the node's first, then its issuer's",
            )
    if not any(_signed(chain[-1], authority) for authority in authorities):
        raise ConfigError(
            f"{certificate}: not signed by {ca}", hint="all nodes of a cluster need the same authority"
        )
    return Facts(
        _names(leaf), leaf.not_valid_before_utc, leaf.not_valid_after_utc, leaf.issuer.rfc4514_string()
    )


def write(path: Path, octets: bytes, *, replace: bool) -> None:
    """Given a file and its content, write it for its owner only, at once or not at all. Raise ConfigError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} is there already", hint="a new one would make the old ones useless: move it away first"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="run as root, or name another directory"
        ) from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _require_authority(directory: Path) -> None:
    try:
        (directory / AUTHORITY_KEY).lstat()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{directory}: no authority is there",
            hint="run it where `mobikectl cluster init` was run, with --dir, and bring that folder to the node",
        ) from error
    except OSError:
        return  # what reads it says more


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(extension.value.get_values_for_type(x509.DNSName))


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="`mobikectl cluster init` and `join` make it"
        ) from error
    if len(octets) > MAX_FILE:
        raise ConfigError(f"{path}: larger than {MAX_FILE} bytes", hint="that is no certificate or key")
    return octets


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)[:MAX_CHAIN]
    except ValueError as error:
        raise ConfigError(
            f"{path}: no certificate in PEM", hint="it begins with BEGIN CERTIFICATE"
        ) from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return any key that can sign; the type is the one that this module makes."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: no private key in PEM, or one with a password",
            hint="the sidecar has nobody to ask for it",
        ) from error
    return key  # type: ignore[return-value]


def today() -> datetime:
    """Return the time for `make_authority` and `issue`."""
    return datetime.now(UTC)
