"""TLS of the HTTP clients."""

import ssl
from functools import cache


@cache
def client_context() -> ssl.SSLContext:
    """Returns the context of all HTTP clients. It trusts the authorities of the system, whose loading takes 40 ms."""
    return ssl.create_default_context()
