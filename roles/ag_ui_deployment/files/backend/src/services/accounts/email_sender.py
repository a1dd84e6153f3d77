"""Sends emails over SMTP. Only this module uses aiosmtplib."""

import asyncio
import ssl
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import structlog
from aiosmtplib import SMTPException, SMTPRecipientsRefused, SMTPResponseException, send

from src.config import Settings
from src.services.accounts.errors import MailNotConfiguredError

logger = structlog.get_logger(__name__)

TIMEOUT = 15.0
_PERMANENT = 500
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
# Concurrent connections, and the seconds before each retry.
_MAX_CONNECTIONS = 4
_RETRY_SECONDS = (2.0, 15.0, 120.0)


class EmailSender:
    def __init__(self, settings: Settings) -> None:
        self._url = settings.SMTP_URL.get_secret_value() if settings.SMTP_URL else None
        self._ca_file = settings.SMTP_CA_FILE or None
        # Given explicitly, since aiosmtplib would ask the resolver, which may be slow.
        self._local_hostname = settings.MAIL_FROM.rpartition("@")[2].rstrip(">")
        self._connections = asyncio.Semaphore(_MAX_CONNECTIONS)

    @property
    def is_configured(self) -> bool:
        return self._url is not None

    def require(self) -> None:
        """Require that emails can be sent.

        Raises:
            MailNotConfiguredError: SMTP_URL is not set.
        """
        if not self.is_configured:
            raise MailNotConfiguredError

    async def send(self, message: EmailMessage, recipient: str) -> bool:
        """Send an email. Temporary errors are retried for some minutes.

        Args:
            message: The email.
            recipient: The envelope recipient.

        Returns:
            Whether the server accepted it.

        Raises:
            MailNotConfiguredError: SMTP_URL is not set.
        """
        for delay in (*_RETRY_SECONDS, None):
            try:
                async with self._connections:
                    await self._try(message, recipient)
            except (SMTPException, OSError) as error:
                if delay is None or _is_permanent(error):
                    logger.error("mail_failed", error=_describe(error))  # noqa: TRY400 - no bug
                    return False
                logger.warning("mail_delayed", error=_describe(error), again_in_seconds=delay)
                await asyncio.sleep(delay)
            else:
                logger.info("mail_sent")
                return True
        return False

    async def _try(self, message: EmailMessage, recipient: str) -> None:
        self.require()
        url = urlsplit(self._url or "")
        await send(
            message,
            # Explicit, since parsing and reformatting the header may change the address.
            recipients=[recipient],
            hostname=url.hostname,
            port=url.port or _PORTS[url.scheme],
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            use_tls=url.scheme == "smtps",
            start_tls=url.scheme == "smtp+starttls",
            tls_context=None
            if url.scheme == "smtp"
            else ssl.create_default_context(cafile=self._ca_file),
            local_hostname=self._local_hostname,
            timeout=TIMEOUT,
        )


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, SMTPRecipientsRefused):
        return all(_is_permanent(refused) for refused in error.recipients)
    return isinstance(error, SMTPResponseException) and error.code >= _PERMANENT


def _describe(error: Exception) -> str:
    """Describe an error for the log without the server's text, which may quote the address or email."""
    if isinstance(error, SMTPResponseException):
        return f"{type(error).__name__} {error.code}"
    cause = error.__cause__
    return type(error).__name__ if cause is None else f"{type(error).__name__}: {cause}"
