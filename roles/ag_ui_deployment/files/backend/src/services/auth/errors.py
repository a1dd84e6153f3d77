"""Errors of logins, tokens, passwords and second factors."""

from src.utils.errors import DomainError, FieldFaultError, NotFoundError


class NotAuthenticatedError(DomainError):
    """The token is missing, forged, expired or of another type, or its session has ended."""

    status = 401
    slug = "not-authenticated"
    title = "Login required"
    detail = "Send a valid access token: Authorization: Bearer TOKEN, from POST /auth/token."


class WrongCredentialsError(DomainError):
    """The address or the password is wrong, or the account is locked or inactive."""

    status = 401
    slug = "wrong-credentials"
    title = "Wrong email address or password"
    detail = "Check both and try again."


class SecondFactorRequiredError(DomainError):
    """The password is right, but the account requires a second factor."""

    status = 401
    slug = "second-factor-required"
    title = "A second factor is needed"
    detail = "Send the login again with otp, from your authenticator, or with a recovery_code."


class SecondFactorRejectedError(DomainError):
    """The second factor is wrong, or was used before."""

    status = 401
    slug = "second-factor-rejected"
    title = "The second factor is not right"
    detail = "Each code counts once: wait for the next one, and check the authenticator's clock."


class SessionNotFoundError(NotFoundError):
    """The user has no such session, or it has ended."""

    slug = "session-not-found"
    title = "No such session"
    detail = "There is no open session with this id."


class RefreshRacedError(DomainError):
    """Another refresh with the same token has just succeeded; its new tokens are valid."""

    status = 409
    slug = "refresh-raced"
    title = "This refresh token was used at the same moment"
    detail = "The other refresh got the new tokens: use those."


class SecondFactorOnError(DomainError):
    """The account already has a second factor."""

    status = 409
    slug = "second-factor-on"
    title = "You have a second factor"
    detail = "To take another one, remove it first: POST /auth/mfa/disable."


class SecondFactorOffError(DomainError):
    """The account has no second factor, or none that awaits confirmation."""

    status = 409
    slug = "second-factor-off"
    title = "You have no second factor"
    detail = "Begin with POST /auth/mfa/setup."


class EmailRejectedError(FieldFaultError):
    """The text is not a valid email address; the message says why."""


class PasswordRejectedError(FieldFaultError):
    """The new password is not allowed; the message says why."""

    slug = "password-rejected"
    title = "This password may not be set"


class WrongPasswordError(FieldFaultError):
    """The current password, required for the change, is wrong, or the account is locked."""

    slug = "wrong-password"
    title = "The current password is not right"
    detail = "Several failures lock the account: then the right one is refused for a while too."

    def __init__(self) -> None:
        super().__init__("is not your password", "current_password")


class ProofRejectedError(FieldFaultError):
    """The password or the code is wrong, or the account is locked."""

    slug = "proof-rejected"
    title = "The password or the code is not right"
    detail = "A code can be used once: wait for the next. Several failures lock the account."

    def __init__(self, field: str) -> None:
        super().__init__("is not right", field)


class LimitReachedError(DomainError):
    """A rate limit or quota is exceeded."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"
    detail = "Try again when the time in Retry-After, in seconds, is over."

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after=retry_after)


class PasswordsBusyError(DomainError):
    """The queue of passwords to hash or to rate is full."""

    status = 503
    slug = "busy"
    title = "Too many passwords are being checked"
    detail = "That takes time, and many wait for it. Try again in a few seconds."
    retry_after = 5


class DecryptionError(DomainError):
    """No key decrypts the secret of a second factor, or it belongs to another user."""

    status = 503
    slug = "second-factor-unreadable"
    title = "Your second factor cannot be checked here"
    detail = "Use a recovery code in place of it, and tell the operator: a key is not set."
    retry_after = 5


class TicketsUnavailableError(DomainError):
    """Redis is down, so it is unknown whether the ticket was used before."""

    status = 503
    slug = "tickets-unavailable"
    title = "Tickets cannot be taken now"
    detail = "Redis does not answer. Try again in a few seconds, or send a bearer token."
    retry_after = 5
