"""Cookies in which a browser keeps its tokens, out of reach of scripts, and when they count."""

import hashlib
from urllib.parse import urlsplit

from fastapi import Request, Response

from src.config import Settings
from src.models.user import CookieSession, Token
from src.services.auth.devices import LIFETIME
from src.utils.errors import DomainError

# Browsers take cookies of this prefix only from this host itself, over TLS and for all paths: no
# other host of the site can set one. That is worth more than a refresh token which only /auth gets.
ACCESS = "__Host-ag_ui_access"
REFRESH = "__Host-ag_ui_refresh"
# One for each account that has logged in with this browser.
_DEVICE = "__Host-ag_ui_device_"
_MAX_DEVICES = 5
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Which browsers trust like TLS.
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
    """Give the tokens to the browser, and to the page only how long they last."""
    _set(response, ACCESS, token.access_token, token.expires_in)
    _set(response, REFRESH, token.refresh_token, token.refresh_expires_in)
    return CookieSession(expires_in=token.expires_in, refresh_expires_in=token.refresh_expires_in)


def clear(response: Response) -> None:
    _set(response, ACCESS, "", 0)
    _set(response, REFRESH, "", 0)


def get(request: Request, name: str) -> str | None:
    """The cookie of exactly this name.

    Starlette strips from names what is no whitespace to browsers, such as a byte 0xA0: with that
    before the prefix any host of the site can set one.
    """
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            found, _, value = pair.strip(" ").partition("=")
            if found == name:
                return value
    return None


def get_device(request: Request, email: str) -> str | None:
    """By which this browser is known to an account."""
    return get(request, _device_name(email))


def set_device(request: Request, response: Response, email: str, value: str) -> None:
    """The accounts of longest ago make way: all cookies come with every request."""
    name = _device_name(email)
    earlier = [one for one in request.cookies if one.startswith(_DEVICE) and one != name]
    for surplus in earlier[: 1 - _MAX_DEVICES]:
        _set(response, surplus, "", 0)
    _set(response, name, value, int(LIFETIME.total_seconds()))


def check_origin(request: Request, settings: Settings) -> None:
    """Whoever writes by a cookie has to be a page of ours.

    A browser adds cookies to requests by itself, and says truly from which page they come.
    Raises WrongOriginError.
    """
    if request.method in SAFE_METHODS:
        return
    own = f"{request.url.scheme}://{request.headers.get('host', '')}".lower()
    origin = request.headers.get("origin", "").lower()
    if origin not in {own, *(allowed.lower() for allowed in settings.CORS_ORIGINS)}:
        raise WrongOriginError


def check_kept(request: Request) -> None:
    """Whoever asks for cookies has to be a page for which the browser keeps them.

    They are Secure and SameSite=Strict. Raises CookiesNotKeptError.
    """
    host = request.url.hostname or ""
    secure = request.url.scheme == "https" or host in _LOOPBACK
    # Every current browser says it. The list of public suffixes is theirs.
    site = request.headers.get("sec-fetch-site")
    same_site = site != "cross-site" if site else _may_be_same_site(request)
    if not (secure and same_site):
        raise CookiesNotKeptError


def _may_be_same_site(request: Request) -> bool:
    """Whether scheme and the end of the domain are those of the page."""
    page, host = urlsplit(request.headers.get("origin", "")), request.url.hostname or ""
    if page.hostname == host:
        return page.scheme == request.url.scheme
    ends = [name.rsplit(".", 2)[-2:] for name in (page.hostname or "", host)]
    named = len(ends[0]) > 1 and not ends[0][-1].isdecimal()
    return named and ends[0] == ends[1] and page.scheme == request.url.scheme


def _device_name(email: str) -> str:
    return _DEVICE + hashlib.sha256(email.strip().lower().encode()).hexdigest()[:16]


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict"
    )
