"""The versions of the AG-UI protocol that this server speaks."""

import re
from enum import StrEnum

# The version format of AG-UI.
_DECLARATION = re.compile(r"(\d{1,9})\.\d{1,9}", re.ASCII)


class ProtocolVersion(StrEnum):
    """`0.0` stands for all releases of `@ag-ui/client` before 1.0: their protocol has no number."""

    V1_0 = "1.0"
    V0_0 = "0.0"


CURRENT = ProtocolVersion.V1_0


def negotiated(declared: str | None) -> ProtocolVersion:
    """The version in which to answer a client.

    Args:
        declared: `protocolVersion` of its RunAgentInput. Clients before 1.0 declare nothing. A
            version newer than the current one is answered in the current one, which RUN_STARTED
            then declares.

    Raises:
        ValueError: It is no version of AG-UI.
    """
    if declared is None:
        return ProtocolVersion.V0_0
    version = _DECLARATION.fullmatch(declared)
    if version is None:
        raise ValueError("give it as MAJOR.MINOR, or leave it out for the protocol before 1.0")
    return ProtocolVersion.V0_0 if int(version[1]) == 0 else CURRENT
