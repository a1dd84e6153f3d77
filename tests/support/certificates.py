"""Makes certificate authorities and the certificates that they sign."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class SignedCertificate:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.encoded_key(serialization.NoEncryption())

    def encoded_key(self, encryption: serialization.KeySerializationEncryption) -> str:
        """Return the private key as PKCS #8 in PEM format."""
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(encoding, form, encryption).decode()


def sign(  # noqa: PLR0913 - parts of a certificate
    name: str,
    issuer: SignedCertificate | None = None,
    *,
    hosts: Sequence[str] = (),
    begins: int = -1,
    ends: int = 30,
    key: PrivateKey | None = None,
    extension: x509.ExtensionType | None = None,
) -> SignedCertificate:
    """Make a certificate for hosts, or a certificate authority if there are none.

    Args:
        name: Its common name.
        issuer: The signing authority; None makes it self-signed.
        hosts: Its subject alternative names: host names and addresses.
        begins: Start of its validity, in days from now.
        ends: End of its validity, in days from now.
        key: Its key; None makes one on P-256.
        extension: A further extension.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extension:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer.key if issuer else key
    return SignedCertificate(builder.sign(signer, hashes.SHA256()), key)


def _general_name(host: str) -> x509.GeneralName:
    if host.replace(".", "").isdigit():
        return x509.IPAddress(IPv4Address(host))
    return x509.DNSName(host)


def server_context(own: SignedCertificate, folder: Path) -> ssl.SSLContext:
    """Make the TLS context of a server with this certificate; the folder is for its file."""
    file = folder / "server.pem"
    file.write_text(own.pem + own.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
