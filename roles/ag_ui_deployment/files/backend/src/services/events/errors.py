"""Why a client gets no stream."""

from src.utils.errors import DomainError

# The status of an instance that is full or being stopped: nginx passes the request on to the next one.
# It decides by the status alone, and 503 also stands for what all instances share, where asking each of
# them would add to an overload.
_ANOTHER_INSTANCE = 502


class DrainingError(DomainError):
    status = _ANOTHER_INSTANCE
    slug = "draining"
    title = "This instance is being stopped"
    detail = "Connect again: another instance will answer."
    retry_after = 1


class TooManyStreamsError(DomainError):
    """The instance has as many streams, or bytes that their clients read again, as it may."""

    status = _ANOTHER_INSTANCE
    slug = "too-many-streams"
    title = "No stream is free on this instance"
    detail = "It holds as many streams as it may. Try again in a few seconds."
    retry_after = 5


class TooManyStreamsOfUserError(DomainError):
    """The user has as many streams here, or bytes that they read again, as one user may."""

    status = 429
    slug = "too-many-streams-of-user"
    title = "You have too many streams open"
    detail = "Close one, or follow several jobs on one stream: GET /events."
    retry_after = 5
