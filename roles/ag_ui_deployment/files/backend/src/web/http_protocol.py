"""Uvicorn's HTTP protocol, with a problem document for requests that cannot be parsed."""

from uuid import uuid4

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from src.utils.errors import DomainError
from src.web.middleware import client_request_id
from src.web.problems import respond


class MalformedRequestError(DomainError):
    status = 400
    slug = "malformed-request"
    title = "The request is not valid HTTP"
    detail = "Percent-encode the address, and send no control characters in headers."


class HttpProtocol(HttpToolsProtocol):
    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - in English, without details
        """Overrides the response of Uvicorn, which is plain text."""
        # None until a request begins.
        request_id = client_request_id(self.headers or ()) or uuid4().hex
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = respond(MalformedRequestError())
        response.headers.update({"X-Request-ID": request_id, "Connection": "close"})
        head = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%s\r\n%s" % (head, response.body))
        self.transport.close()
