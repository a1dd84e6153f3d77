"""Tickets: what opens one stream, where a client can send no header."""

from redis.asyncio import Redis

from src.models.user import Ticket
from src.services.auth.errors import NotAuthenticatedError, TicketsUnavailableError
from src.services.auth.tokens import TICKET_SECONDS, AccessToken, Tokens
from src.utils.redis import REDIS_ERRORS

# Also where the clocks of two instances differ.
_REMEMBERED_SECONDS = 2 * TICKET_SECONDS


class TicketService:
    """A ticket is signed, and its use is noted in Redis, where every instance looks."""

    def __init__(self, tokens: Tokens, redis: Redis, stream: str) -> None:
        self._tokens = tokens
        self._redis = redis
        self._prefix = f"{stream}:ticket:"

    def issue(self, access: AccessToken) -> Ticket:
        return Ticket(ticket=self._tokens.issue_ticket(access), expires_in=TICKET_SECONDS)

    def read(self, ticket: str) -> tuple[AccessToken, str]:
        """What the ticket says of who got it, and its id. Raises NotAuthenticatedError."""
        return self._tokens.verify_ticket(ticket)

    async def use(self, ticket_id: str) -> None:
        """Raises NotAuthenticatedError if it was used before, or TicketsUnavailableError."""
        key = self._prefix + ticket_id
        try:
            is_first = await self._redis.set(key, b"", nx=True, ex=_REMEMBERED_SECONDS)
        except REDIS_ERRORS as error:
            raise TicketsUnavailableError from error
        if not is_first:
            raise NotAuthenticatedError
