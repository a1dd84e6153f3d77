"""Uvicorn's HTTP protocol, with a problem document for requests that cannot be parsed."""

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from src.utils.errors import DomainError
from src.web.middleware import REQUEST_ID_HEADER, request_id_of
from src.web.problems import respond


class MalformedRequestError(DomainError):
    status = 400
    slug = "malformed-request"
    title = "The request is not valid HTTP"
    detail = "Percent-encode the address, and send no control characters in headers."


class HttpProtocol(HttpToolsProtocol):
    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the same text for all requests
        """Override the response of Uvicorn, which is plain text."""
        # The headers are None before the first request.
        request_id = request_id_of(self.headers or ())
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = respond(MalformedRequestError())
        response.headers.update({REQUEST_ID_HEADER: request_id, "Connection": "close"})
        head = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%s\r\n%s" % (head, response.body))
        self.transport.close()
