"""What is verified of a server's certificate."""

from __future__ import annotations

import ssl


def tls_context(ca: str, *, verify: bool, check_name: bool) -> ssl.SSLContext:
    """Make a TLS context.

    Args:
        ca: Trusted authorities in PEM; empty for those of the system.
        verify: Whether an authority must have signed the certificate.
        check_name: Whether the certificate must be for the host; only with `verify`.

    Returns:
        A context that does not offer versions before TLS 1.2.
    """
    context = ssl.create_default_context(cadata=ca or None)
    context.check_hostname = check_name
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    return context
