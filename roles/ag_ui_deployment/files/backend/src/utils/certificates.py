"""The certificate that a TLS server presents."""

import asyncio
import ssl

from cryptography import x509


async def certificate_expiry(host: str, port: int) -> float:
    """When the certificate that the server presents expires, as Unix time. It need not be valid.

    Raises:
        OSError: There is no connection, or the handshake fails.
        ValueError: The certificate cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        encoded: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(encoded).not_valid_after_utc.timestamp()
