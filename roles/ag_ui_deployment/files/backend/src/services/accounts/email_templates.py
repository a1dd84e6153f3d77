"""The emails: plain text, each with one link."""

from collections.abc import Coroutine
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from typing import Any

from src.config import Settings
from src.models.account import LinkPurpose
from src.services.accounts.email_sender import EmailSender
from src.services.accounts.link_tokens import EmailLink
from src.utils.background_jobs import BackgroundJobs

_PAGES = {
    LinkPurpose.INVITATION: "register",
    LinkPurpose.REGISTRATION: "verify-email",
    LinkPurpose.RESET: "reset-password",
}
_SUBJECTS = {
    LinkPurpose.INVITATION: "Your invitation",
    LinkPurpose.REGISTRATION: "Confirm your address",
    LinkPurpose.RESET: "Set a new password",
}
_TEXTS = {
    LinkPurpose.INVITATION: "You have been invited to Shield. Choose a password here:",
    LinkPurpose.REGISTRATION: (
        "Somebody, probably you, has registered this address with Shield. Choose a password here, "
        "and the account is made:"
    ),
    LinkPurpose.RESET: (
        "Somebody, probably you, wants to set a new password for your Shield account, or to "
        "register this address once more. Set a new password here:"
    ),
}
_FOOTER = "If you did not expect this mail, do nothing: then nothing changes."


class EmailTemplates:
    """Composes the emails and sends them."""

    def __init__(self, mail: EmailSender, jobs: BackgroundJobs, settings: Settings) -> None:
        self._mail = mail
        self._jobs = jobs
        self._from = settings.MAIL_FROM
        self._public_url = settings.PUBLIC_URL

    def link(self, purpose: LinkPurpose, token: str) -> str:
        """The URL with the token in its fragment, which browsers do not send to servers."""
        return f"{self._public_url}/{_PAGES[purpose]}#token={token}"

    @property
    def can_be_sent(self) -> bool:
        return self._mail.is_configured

    def require(self) -> None:
        """Require that emails can be sent.

        Raises:
            MailNotConfiguredError: SMTP_URL is not set.
        """
        self._mail.require()

    def run_in_background(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run `coroutine` in the background, so that the response time does not reveal an account."""
        self._jobs.start(coroutine)

    async def send(self, purpose: LinkPurpose, email: str, link: EmailLink) -> None:
        await self._mail.send(self._compose(purpose, email, link), email)

    def _compose(self, purpose: LinkPurpose, email: str, link: EmailLink) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._from
        message["To"] = email
        message["Subject"] = _SUBJECTS[purpose]
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = make_msgid(domain=self._from.rpartition("@")[2].rstrip(">"))
        message["Auto-Submitted"] = "auto-generated"
        expiry = link.expires_at.strftime("%Y-%m-%d %H:%M UTC")
        message.set_content(
            f"{_TEXTS[purpose]}\n\n{self.link(purpose, link.token)}\n\n"
            f"The link is good once, until {expiry}.\n{_FOOTER}\n"
        )
        return message
