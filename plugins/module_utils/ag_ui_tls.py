"""TLS contexts for clients."""

from __future__ import annotations

import ssl


def tls_context(ca: str, *, verify: bool, check_name: bool) -> ssl.SSLContext:
    """Create a TLS context.

    Args:
        ca: Trusted CA certificates in PEM; empty for those of the system.
        verify: Whether to verify that a trusted CA signed the certificate.
        check_name: Whether to verify the host name in the certificate; requires `verify`.

    Returns:
        A context that requires TLS 1.2 or later.
    """
    context = ssl.create_default_context(cadata=ca or None)
    context.check_hostname = check_name
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    return context
