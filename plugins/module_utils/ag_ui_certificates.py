"""Read certificates: for which names, and from when until when, they are valid."""

from __future__ import annotations

import re
import ssl
from typing import NamedTuple

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_commands import (
    output_of,
)


class Certificate(NamedTuple):
    """What the host needs to know of a certificate.

    Attributes:
        names: Host names and addresses in lower case.
        begins: When it becomes valid, as Unix time.
        expires: When it expires, as Unix time.
    """

    names: list[str]
    begins: int
    expires: int


def parse(pem: str) -> Certificate | None:
    """Parse the first certificate of a text in PEM; None if there is none."""
    if "BEGIN" not in pem:
        return None
    command = ("openssl", "x509", "-noout", "-dates", "-ext", "subjectAltName")
    text = output_of(*command, text=pem)
    dates = dict(re.findall(r"^(notBefore|notAfter)=(.+)$", text, re.MULTILINE))
    if not dates:
        return None
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", text)
    return Certificate(
        [name.lower().replace("0:0:0:0:0:0:0:1", "::1") for name in names],
        ssl.cert_time_to_seconds(dates["notBefore"]),
        ssl.cert_time_to_seconds(dates["notAfter"]),
    )
