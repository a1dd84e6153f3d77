"""The emails: plain text, each with one link."""

from collections.abc import Coroutine
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from typing import Any

from src.config import Settings
from src.models.account import Purpose
from src.services.accounts.email_sender import EmailSender
from src.services.accounts.link_tokens import EmailLink
from src.utils.background_jobs import BackgroundJobs

_PAGES = {
    Purpose.INVITATION: "register",
    Purpose.REGISTRATION: "verify-email",
    Purpose.RESET: "reset-password",
}
_SUBJECTS = {
    Purpose.INVITATION: "Your invitation",
    Purpose.REGISTRATION: "Confirm your address",
    Purpose.RESET: "Set a new password",
}
_TEXTS = {
    Purpose.INVITATION: "You have been invited to Shield. Choose a password here:",
    Purpose.REGISTRATION: (
        "Somebody, probably you, has registered this address with Shield. Choose a password here, "
        "and the account is made:"
    ),
    Purpose.RESET: (
        "Somebody, probably you, wants to set a new password for your Shield account, or to "
        "register this address once more. Set a new password here:"
    ),
}
_IGNORE = "If you did not expect this mail, do nothing: then nothing changes."


class EmailTemplates:
    """Composes the emails and sends them."""

    def __init__(self, mail: EmailSender, jobs: BackgroundJobs, settings: Settings) -> None:
        self._mail = mail
        self._jobs = jobs
        self._from = settings.MAIL_FROM
        self._site = settings.PUBLIC_URL

    def link(self, purpose: Purpose, token: str) -> str:
        """The URL with the token in its fragment, which browsers do not send to servers."""
        return f"{self._site}/{_PAGES[purpose]}#token={token}"

    @property
    def can_be_sent(self) -> bool:
        return self._mail.is_configured

    def require(self) -> None:
        """Require that emails can be sent.

        Raises:
            MailNotConfiguredError: SMTP_URL is not set.
        """
        self._mail.require()

    def run_in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run `work` in the background, so that the response time does not reveal an account."""
        self._jobs.start(work)

    async def send(self, purpose: Purpose, email: str, link: EmailLink) -> None:
        await self._mail.send(self._write(purpose, email, link), email)

    def _write(self, purpose: Purpose, email: str, link: EmailLink) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._from
        message["To"] = email
        message["Subject"] = _SUBJECTS[purpose]
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = make_msgid(domain=self._from.rpartition("@")[2].rstrip(">"))
        message["Auto-Submitted"] = "auto-generated"
        until = link.expires_at.strftime("%Y-%m-%d %H:%M UTC")
        message.set_content(
            f"{_TEXTS[purpose]}\n\n{self.link(purpose, link.token)}\n\n"
            f"The link is good once, until {until}.\n{_IGNORE}\n"
        )
        return message
