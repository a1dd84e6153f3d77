"""Email addresses, in the one form in which they are stored and compared."""

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from src.services.auth.errors import EmailRejectedError

# Names that are reserved for tests and private networks are good names here.
SPECIAL_USE_DOMAIN_NAMES.clear()
# What is longer is none, and to find that out takes up to two seconds for a megabyte.
_MAX_CHARACTERS = 320
# Which ignores dots.
_GMAIL = ("gmail.com", "googlemail.com")
# So begins what is decoded in the header of a mail: =?utf-8?q?bob?=@shield.test is bob there.
_ENCODED_WORD = "=?"


def normalise_email(text: str) -> str:
    """The form in which addresses are stored and compared. Raises EmailRejectedError.

    It is ASCII, with international domains as xn--…: an address that looks like another's is
    seen to be none.
    """
    if len(text) > _MAX_CHARACTERS:
        raise EmailRejectedError(f"may have at most {_MAX_CHARACTERS} characters", "email")
    try:
        checked = validate_email(
            text.strip(),
            check_deliverability=False,
            globally_deliverable=False,
            allow_smtputf8=False,
        )
    except EmailNotValidError as error:
        raise EmailRejectedError(str(error), "email") from None
    if _ENCODED_WORD in checked.local_part:
        raise EmailRejectedError(f"may not have {_ENCODED_WORD} before the @", "email")
    return (checked.ascii_email or checked.normalized).lower()


def mail_budget_of(email: str) -> str:
    """What the mails to a normalised address count for, so that one mailbox gets a bounded number.

    All spellings of a mailbox but the plain one (name+tag@, and dots at Gmail) count together. The
    plain one counts apart: others cannot use up its mails with tags.
    """
    local, _, domain = email.rpartition("@")
    name = local.partition("+")[0] or local
    if domain in _GMAIL:
        name, domain = name.replace(".", ""), _GMAIL[0]
    mailbox = f"{name}@{domain}"
    return mailbox if mailbox == email else f"+{mailbox}"
