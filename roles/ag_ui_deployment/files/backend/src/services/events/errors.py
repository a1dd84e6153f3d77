"""Errors that reject an event stream."""

from src.utils.errors import DomainError

# The status of an instance that is full or draining: nginx passes the request to the next instance.
# nginx decides by the status alone. 503 also reports outages of shared services, where retries on
# each instance would add to an overload.
_ANOTHER_INSTANCE = 502


class DrainingError(DomainError):
    status = _ANOTHER_INSTANCE
    slug = "draining"
    title = "This instance is being stopped"
    detail = "Connect again: another instance will answer."
    retry_after = 1


class TooManyStreamsError(DomainError):
    """The instance has reached its limit of streams, or of bytes in memory for ended runs."""

    status = _ANOTHER_INSTANCE
    slug = "too-many-streams"
    title = "No stream is free on this instance"
    detail = "It holds as many streams as it may. Try again in a few seconds."
    retry_after = 5


class TooManyStreamsOfUserError(DomainError):
    """The user has reached their limit of streams, or of bytes in memory, on this instance."""

    status = 429
    slug = "too-many-streams-of-user"
    title = "You have too many streams open"
    detail = "Close one, or follow several jobs on one stream: GET /events."
    retry_after = 5
