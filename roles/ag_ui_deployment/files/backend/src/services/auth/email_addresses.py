"""Normalisation of email addresses."""

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from src.services.auth.errors import EmailRejectedError

# Accept domains reserved for tests and private networks, such as .test and .local.
SPECIAL_USE_DOMAIN_NAMES.clear()
# No valid address is longer, and validating a megabyte takes up to two seconds.
_MAX_CHARACTERS = 320
# Gmail ignores dots in the local part.
_GMAIL = ("gmail.com", "googlemail.com")
# Start of an encoded word (RFC 2047): in a header, =?utf-8?q?bob?=@shield.test is decoded to bob.
_ENCODED_WORD = "=?"


def normalise_email(text: str) -> str:
    """Return the form in which an address is stored and compared.

    It is lower-case ASCII. International domains are in Punycode (xn--…), which makes homographs
    visible.

    Raises:
        EmailRejectedError: The text is no valid email address.
    """
    if len(text) > _MAX_CHARACTERS:
        raise EmailRejectedError(f"may have at most {_MAX_CHARACTERS} characters", "email")
    try:
        validated = validate_email(
            text.strip(),
            check_deliverability=False,
            globally_deliverable=False,
            allow_smtputf8=False,
        )
    except EmailNotValidError as error:
        raise EmailRejectedError(str(error), "email") from None
    if _ENCODED_WORD in validated.local_part:
        raise EmailRejectedError(f"may not have {_ENCODED_WORD} before the @", "email")
    return (validated.ascii_email or validated.normalized).lower()


def mailbox_key(email: str) -> str:
    """The key that emails to a normalised address count against, to limit emails per mailbox.

    All variants of a mailbox (name+tag@, and dots at Gmail) share one key. The plain address has its
    own, so that others cannot use up its limit with variants.
    """
    local, _, domain = email.rpartition("@")
    name = local.partition("+")[0] or local
    if domain in _GMAIL:
        name, domain = name.replace(".", ""), _GMAIL[0]
    mailbox = f"{name}@{domain}"
    return mailbox if mailbox == email else f"+{mailbox}"
