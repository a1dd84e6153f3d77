"""Authenticates clients of the gateway: LiteLLM's `custom_auth` hook, without a database.

The key itself has no limits. `KEY-limited-ANYTHING` may make two requests a minute; each ANYTHING
has its own counter, so that tests do not affect one another. While a file `keys-limited` exists
beside the proxy's configuration, the limit applies to the key itself; while a file
`keys-withdrawn` exists, no key is valid.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

from tests.shield.gateway.proxy import FOLDER_VARIABLE

if TYPE_CHECKING:
    from fastapi import Request

REQUESTS_PER_MINUTE = 2


async def check(request: Request, api_key: str) -> UserAPIKeyAuth:  # noqa: ARG001 - LiteLLM's signature
    """Return the permissions of a key; raises ProxyException (401) if it is invalid."""
    key = os.environ["SHIELD_GATEWAY_KEY"]
    limited = api_key.startswith(f"{key}-limited-")
    if _is_there("keys-withdrawn") or (api_key != key and not limited):
        raise ProxyException(
            message="Authentication Error, Invalid proxy server token passed.",
            type="auth_error",
            param="key",
            code=401,
        )
    return UserAPIKeyAuth(
        api_key=api_key,
        user_id="backend",
        user_role=LitellmUserRoles.INTERNAL_USER,
        rpm_limit=REQUESTS_PER_MINUTE if limited or _is_there("keys-limited") else None,
    )


def _is_there(file: str) -> bool:
    return Path(os.environ[FOLDER_VARIABLE], file).exists()
