"""The route class of the API: authenticates, checks the global rate limit and reads the body.

FastAPI reads and parses the body before it resolves dependencies, so this runs before FastAPI.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import orjson
from fastapi import Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from src.utils.errors import DomainError, FieldFault, InvalidRequestError
from src.utils.json_shape import JsonShape, JsonTooComplexError
from src.utils.large_bodies import LARGE_BODY_BYTES, LargeBodies
from src.web.dependencies import identify, identify_early
from src.web.problems import UnreadableBodyError, invalid_request
from src.web.route_rules import calls_of

if TYPE_CHECKING:
    from src.composition.services import Services

# Returns the validated model of a value, and Pydantic's errors.
_Validate = Callable[..., tuple[Any, list[dict[str, Any]]]]

# Headers that the API reads and that have one value. Several would be ambiguous.
_SINGLE_HEADERS = (
    "Authorization",
    "Idempotency-Key",
    "Last-Event-ID",
    "AG-UI-Protocol-Version",
)
# Maximum time to receive a large body after its slot is acquired, in seconds. Prevents slow clients
# from holding slots.
_LARGE_BODY_SECONDS = 30.0


class SlowBodyError(DomainError):
    status = 408
    slug = "body-too-slow"
    title = "The request body did not come in time"
    detail = "A large body has to be sent within 30 seconds. Send a smaller one, or send it again."


class BodyTooLargeError(DomainError):
    status = 413
    slug = "body-too-large"
    title = "The request body is too large"


class ApiRoute(APIRoute):
    """A route of the API. Routes that require no login accept only small bodies."""

    # Maximum body size as a multiple of BODY_MAX_BYTES.
    body_factor: ClassVar[int] = 1

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        field = self.body_field
        is_form = field is not None and isinstance(field.field_info, Form)
        # With several fields in one body, FastAPI validates each field separately.
        validate = field.validate if field and not self._embed_body_fields else None
        needs_login = identify in calls_of(self.dependant)

        async def handle_request(request: Request) -> Response:
            _check_headers(request)
            services = cast("Services", request.state.services)
            # Before the global limit is counted, so that requests without a valid login cannot use
            # it up here.
            access = await identify_early(request, services) if needs_login else None
            await services.auth.limits.check_global()
            if field is None:
                return await handle(request)
            async with AsyncExitStack() as stack:
                max_bytes = services.settings.BODY_MAX_BYTES
                reader = _BodyReader(request, stack, min(max_bytes, LARGE_BODY_BYTES))
                if access is not None:
                    slot = services.large_bodies.slot(access.user.id)
                    reader.allow_large(max_bytes * self.body_factor, slot)
                body = await reader.read(None if is_form else JsonShape())

                async def parse() -> Any:
                    value = await _parse(services.large_bodies, body, validate)
                    # Releases the slot, since the route may take long to process the value.
                    await stack.aclose()
                    return value

                return await handle(_ReadRequest(request, body, parse))

        return handle_request


class ConversationRoute(ApiRoute):
    """A route for larger bodies: clients send the whole conversation with each message."""

    body_factor = 4


class _BodyReader:
    """Reads the body of a request. A large body holds a slot until `stack` is closed."""

    def __init__(self, request: Request, stack: AsyncExitStack, max_bytes: int) -> None:
        self._request = request
        self._stack = stack
        self._max_bytes = max_bytes
        self._slot: AbstractAsyncContextManager[None] | None = None
        self._deadline = asyncio.timeout(None)

    def allow_large(self, max_bytes: int, slot: AbstractAsyncContextManager[None]) -> None:
        self._max_bytes = max_bytes
        self._slot = slot

    async def read(self, shape: JsonShape | None) -> bytes:
        """Reads the whole body.

        Args:
            shape: Checks the nesting and size of JSON while it is read; None for a form.

        Raises:
            BodyTooLargeError: The body exceeds the limit of the route.
            InvalidRequestError: The JSON is too complex.
            SlowBodyError: A large body was not received in time.
            TooManyBodiesError: No slot for a large body became free in time.
            TooManyBodiesOfUserError: Another large body of the user is still being read.
            UnreadableBodyError: The client disconnected.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            async with self._deadline, aclosing(self._request.stream()) as stream:
                await self._admit(_content_length(self._request))
                async for chunk in stream:
                    size += len(chunk)
                    await self._admit(size)
                    if shape is not None:
                        shape.feed(chunk)
                    chunks.append(chunk)
        except JsonTooComplexError as error:
            raise InvalidRequestError(faults=[FieldFault("body", str(error))]) from None
        except ClientDisconnect:
            raise UnreadableBodyError from None
        except TimeoutError:
            raise SlowBodyError from None
        return b"".join(chunks)

    async def _admit(self, size: int) -> None:
        if size > self._max_bytes:
            detail = f"A request body may have at most {self._max_bytes} bytes here."
            raise BodyTooLargeError(detail=detail)
        if size > LARGE_BODY_BYTES and self._slot is not None:
            slot, self._slot = self._slot, None
            await self._stack.enter_async_context(slot)
            self._deadline.reschedule(asyncio.get_running_loop().time() + _LARGE_BODY_SECONDS)


class _ReadRequest(Request):
    """A request whose body has been read within the limits."""

    def __init__(self, request: Request, body: bytes, parse: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body
        self._parse = parse

    async def json(self) -> Any:
        """Returns the parsed body, or its validated model."""
        return await self._parse()


def _check_headers(request: Request) -> None:
    for name in _SINGLE_HEADERS:
        if len(request.headers.getlist(name)) > 1:
            fault = FieldFault(f"header.{name.lower()}", "is sent more than once")
            raise InvalidRequestError(faults=[fault])


async def _parse(large_bodies: LargeBodies, body: bytes, validate: _Validate | None) -> Any:
    """Parses a JSON body, and validates a large one in the same thread.

    Returns:
        The value; the model if it was validated here, which FastAPI accepts unchanged.

    Raises:
        InvalidRequestError: The body is not JSON, or fails validation.
    """
    if len(body) <= LARGE_BODY_BYTES:
        return _parse_json(body)
    if validate is None:
        return await large_bodies.parse(_parse_json, body)
    return await large_bodies.parse(partial(_parse_model, validate), body)


def _parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"is not valid JSON: {error.msg}, at position {error.pos}"
        raise InvalidRequestError(faults=[FieldFault("body", message)]) from None


def _parse_model(validate: _Validate, body: bytes) -> Any:
    validated, errors = validate(_parse_json(body), loc=("body",))
    if errors:
        raise invalid_request(errors)
    return validated


def _content_length(request: Request) -> int:
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() else 0
