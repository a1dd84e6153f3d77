"""Single-use tickets that open a stream, for clients that cannot send an Authorization header."""

from redis.asyncio import Redis

from src.models.user import Ticket
from src.services.auth.errors import NotAuthenticatedError, TicketsUnavailableError
from src.services.auth.tokens import TICKET_SECONDS, AccessToken, TokenService
from src.utils.redis import REDIS_ERRORS

# Longer than the lifetime of a ticket, to allow for clock differences between instances.
_REMEMBERED_SECONDS = 2 * TICKET_SECONDS


class TicketService:
    """Issues signed tickets, and records their use in Redis for all instances."""

    def __init__(self, tokens: TokenService, redis: Redis, stream: str) -> None:
        self._tokens = tokens
        self._redis = redis
        self._prefix = f"{stream}:ticket:"

    def issue(self, access: AccessToken) -> Ticket:
        return Ticket(ticket=self._tokens.issue_ticket(access), expires_in=TICKET_SECONDS)

    def read(self, ticket: str) -> tuple[AccessToken, str]:
        """Verify a ticket without using it, and return its access and its id.

        Raises:
            NotAuthenticatedError: It is forged, expired, or no ticket.
        """
        return self._tokens.verify_ticket(ticket)

    async def use(self, ticket_id: str) -> None:
        """Mark a ticket as used.

        Raises:
            NotAuthenticatedError: It was used before.
            TicketsUnavailableError: Redis is down.
        """
        key = self._prefix + ticket_id
        try:
            is_first = await self._redis.set(key, b"", nx=True, ex=_REMEMBERED_SECONDS)
        except REDIS_ERRORS as error:
            raise TicketsUnavailableError from error
        if not is_first:
            raise NotAuthenticatedError
