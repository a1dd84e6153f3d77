"""TLS of the HTTP clients."""

import ssl
from functools import cache


@cache
def client_context() -> ssl.SSLContext:
    """The context of all clients, which trusts the authorities of the system; loading them takes 40 ms."""
    return ssl.create_default_context()
