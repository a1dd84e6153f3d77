"""Errors of the event stream and its dead letters."""

from src.utils.errors import DomainError, NotFoundError


class DeadLetterNotFoundError(NotFoundError):
    slug = "dead-letter-not-found"
    title = "No such dead letter"
    detail = "GET /admin/stream/dead-letters lists them."


class DeadLetterClosedError(DomainError):
    status = 409
    slug = "dead-letter-closed"
    title = "The dead letter has been replayed or discarded before"
    detail = "GET /admin/stream/dead-letters?state=closed tells by whom."


class DeadLetterIncompleteError(DomainError):
    status = 409
    slug = "dead-letter-incomplete"
    title = "Only a part of the entry was kept, so it cannot be replayed"
    detail = "Let its producer publish it again, then discard the dead letter."


class StreamUnavailableError(DomainError):
    """Redis does not answer, or rejects the command."""

    status = 503
    slug = "stream-unavailable"
    title = "Redis does not answer"
    detail = "Nothing can be said of the stream or added to it. Try again in a few seconds."
    retry_after = 5
