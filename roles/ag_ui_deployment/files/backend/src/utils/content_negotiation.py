"""Proactive content negotiation by the header Accept (RFC 9110, section 12.5.1)."""

import re

_WEIGHT = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def quality(accept: str, media_type: str) -> float:
    """Returns the weight that a client gives to a media type: 0 (not acceptable) to 1.

    The most specific range that matches decides. Parameters other than `q` are ignored.

    Args:
        accept: The value of the header; an empty one accepts everything.
        media_type: A media type without parameters, in lower case.
    """
    any_subtype = f"{media_type.partition('/')[0]}/*"
    weights: dict[str, float] = {}
    for element in (accept or "*/*").lower().split(","):
        media_range, *parameters = (part.strip() for part in element.split(";"))
        matches = (_WEIGHT.fullmatch(parameter) for parameter in parameters)
        weights[media_range] = next((float(match[1]) for match in matches if match), 1.0)
    specific_first = (media_type, any_subtype, "*/*")
    return next((weights[name] for name in specific_first if name in weights), 0.0)


def prefers(accept: str, media_type: str, other: str) -> bool:
    """Whether a client gives a media type a higher weight than another one."""
    return quality(accept, media_type) > quality(accept, other)
