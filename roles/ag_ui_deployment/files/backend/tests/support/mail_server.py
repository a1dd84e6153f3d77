"""A real SMTP server with a mailbox, in the event loop of the test."""

import asyncio
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.waiting import until

USER, PASSWORD = "shield", "mail/pass@word:of a test"


@dataclass
class MailServer:
    """Stores received mails.

    `refuse_with` is the reply to recipients instead of accepting the mail.
    """

    port: int = 0
    refuse_with: str | None = None
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    attempts: int = 0
    # The addresses as clients sent them, which the server decodes.
    recipients: list[str] = field(default_factory=list)

    # aiosmtpd calls methods by these names.
    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        self.attempts += 1
        if self.refuse_with:
            return self.refuse_with
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content, transport = envelope.content, server.transport
        assert transport is not None
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.envelopes.append(envelope)
        self.encrypted.append(transport.get_extra_info("ssl_object") is not None)
        return "250 OK"

    def check(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _kind: str, given: Any
    ) -> AuthResult:
        """Check a login; records its user name."""
        assert isinstance(given, LoginPassword)
        self.logins.append(given.login.decode())
        fits = (given.login.decode(), given.password.decode()) == (USER, PASSWORD)
        return AuthResult(success=fits)

    async def token(self) -> str:
        """Remove the next mail from the mailbox and return its token."""
        await until(lambda: self.mails)
        text = self.mails.pop(0).get_content()
        found = re.search(r"#token=([\w-]+)", text)
        assert found, text
        return found[1]


@asynccontextmanager
async def mail_server(
    context: ssl.SSLContext | None = None, *, starttls: bool = False, login: bool = False
) -> AsyncIterator[MailServer]:
    """Run a server for the duration of the block.

    Args:
        context: The TLS context; None disables encryption.
        starttls: Whether TLS begins with STARTTLS instead of the connection.
        login: Whether clients must log in.
    """
    loop = asyncio.get_running_loop()
    box = MailServer()

    class Server(SMTP):
        async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - as in aiosmtpd
            box.recipients.append(str(arg))
            await super().smtp_RCPT(arg)

    def protocol() -> SMTP:
        return Server(
            box,
            hostname="mail.shield.test",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            authenticator=box.check if login else None,
            auth_required=login,
            auth_require_tls=starttls,
            loop=loop,
        )

    outer = None if starttls else context
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=outer)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context for 127.0.0.1, and the certificate file for its clients."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail of the tests")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "mail.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "mail.key"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.LinkPurpose.CLIENT_AUTH)
    context.load_cert_chain(pem, private)
    return context, pem
