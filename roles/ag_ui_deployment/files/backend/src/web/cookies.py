"""The HttpOnly cookies that hold the tokens of a browser, and the checks of their use."""

import hashlib
from urllib.parse import urlsplit

from fastapi import Request, Response

from src.config import Settings
from src.models.user import CookieSession, Token
from src.services.auth.devices import LIFETIME
from src.utils.errors import DomainError

# With the prefix __Host- browsers accept a cookie only from this host, over TLS and with Path=/, so
# that no other host of the site can set it. This rules out Path=/auth for the refresh token.
ACCESS = "__Host-ag_ui_access"
REFRESH = "__Host-ag_ui_refresh"
# Prefix of the device cookies: one per account that has logged in with this browser.
_DEVICE = "__Host-ag_ui_device_"
_MAX_DEVICES = 5
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Hosts that browsers treat as a secure context without TLS.
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class WrongOriginError(DomainError):
    status = 403
    slug = "wrong-origin"
    title = "Not from this page"
    detail = (
        "A write by cookie has to come from this host or one of CORS_ORIGINS, in the header Origin; "
        "send a bearer token instead."
    )


class CookiesNotKeptError(DomainError):
    status = 403
    slug = "cookies-not-kept"
    title = "The browser would drop the cookies"
    detail = (
        "Browsers keep them only over TLS (or on this machine), and for pages of the same site as "
        "this server. Serve the page from a host of the same domain, or log in without cookies and "
        "send the bearer token."
    )


def set_session(response: Response, token: Token) -> CookieSession:
    """Sets the tokens as cookies.

    Returns:
        The lifetimes of the tokens, without the tokens, for the page.
    """
    _set(response, ACCESS, token.access_token, token.expires_in)
    _set(response, REFRESH, token.refresh_token, token.refresh_expires_in)
    return CookieSession(expires_in=token.expires_in, refresh_expires_in=token.refresh_expires_in)


def clear(response: Response) -> None:
    _set(response, ACCESS, "", 0)
    _set(response, REFRESH, "", 0)


def get(request: Request, name: str) -> str | None:
    """Returns the value of the cookie with exactly this name; None if there is none.

    Starlette's request.cookies strips characters from names that browsers do not treat as
    whitespace, such as byte 0xA0. With such a character before the prefix, any host of the site can
    set the cookie.
    """
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            found, _, value = pair.strip(" ").partition("=")
            if found == name:
                return value
    return None


def get_device(request: Request, email: str) -> str | None:
    """Returns the device cookie of an account in this browser."""
    return get(request, _device_name(email))


def set_device(request: Request, response: Response, email: str, value: str) -> None:
    """Sets the device cookie of an account.

    Deletes the oldest ones above the maximum, since browsers send all cookies with every request.
    """
    name = _device_name(email)
    earlier = [
        cookie for cookie in request.cookies if cookie.startswith(_DEVICE) and cookie != name
    ]
    for surplus in earlier[: 1 - _MAX_DEVICES]:
        _set(response, surplus, "", 0)
    _set(response, name, value, int(LIFETIME.total_seconds()))


def check_origin(request: Request, settings: Settings) -> None:
    """Rejects writes authenticated by cookie from other origins (CSRF).

    Browsers add cookies to requests automatically, and set the header Origin reliably.

    Raises:
        WrongOriginError: The header Origin is neither this host nor one of CORS_ORIGINS.
    """
    if request.method in SAFE_METHODS:
        return
    own = f"{request.url.scheme}://{request.headers.get('host', '')}".lower()
    origin = request.headers.get("origin", "").lower()
    if origin not in {own, *(allowed.lower() for allowed in settings.CORS_ORIGINS)}:
        raise WrongOriginError


def check_kept(request: Request) -> None:
    """Rejects a login by cookie if the browser would drop the cookies.

    The cookies are Secure and SameSite=Strict.

    Raises:
        CookiesNotKeptError: The connection is not secure, or the page is of another site.
    """
    host = request.url.hostname or ""
    secure = request.url.scheme == "https" or host in _LOOPBACK
    # All current browsers send it. They know the public suffix list, this module does not.
    site = request.headers.get("sec-fetch-site")
    same_site = site != "cross-site" if site else _may_be_same_site(request)
    if not (secure and same_site):
        raise CookiesNotKeptError


def _may_be_same_site(request: Request) -> bool:
    """Whether the page has the same scheme, and the same host or last two domain labels."""
    origin, host = urlsplit(request.headers.get("origin", "")), request.url.hostname or ""
    if origin.hostname == host:
        return origin.scheme == request.url.scheme
    site_labels = [name.rsplit(".", 2)[-2:] for name in (origin.hostname or "", host)]
    has_domain = len(site_labels[0]) > 1 and not site_labels[0][-1].isdecimal()
    return has_domain and site_labels[0] == site_labels[1] and origin.scheme == request.url.scheme


def _device_name(email: str) -> str:
    return _DEVICE + hashlib.sha256(email.strip().lower().encode()).hexdigest()[:16]


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict"
    )
