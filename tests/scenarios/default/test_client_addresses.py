"""Which proxies the service trusts for the client's address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.scenarios.support.http import request
from tests.scenarios.support.site import PASSWORD
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.site import Account, Site

CLIENT = "203.0.113.9"


def logins_of(site: Site, admin: Account, email: str) -> list[str]:
    """Return the addresses of an account's logins, from the audit log."""
    answer = request(site.proxy, "GET", f"/admin/audit?actor={email}&limit=200", token=admin.token)
    assert answer.status == 200, answer
    return [it["address"] for it in answer.json()["items"] if it["action"] == "login"]


def new_account(site: Site) -> str:
    """Create an account that has never logged in; return its email address."""
    email = f"account-{uuid4().hex}@example.com"
    site.cli("users", "add", email, "--role", "viewer", send=f"{PASSWORD}\n")
    return email


def test_client_address_of_a_trusted_proxy_is_audited(site: Site, admin: Account) -> None:
    """The inventory trusts this machine as a proxy.

    An address that the client claims has no effect.
    """
    email = new_account(site)
    answer = request(
        site.proxy,
        "POST",
        "/auth/token",
        form={"username": email, "password": PASSWORD},
        headers={"X-Forwarded-For": f"198.51.100.1, {CLIENT}"},
    )
    assert answer.status == 200, answer
    eventually(lambda: logins_of(site, admin, email) == [CLIENT], "the login audited", within=60)


def test_forwarded_address_of_an_untrusted_client_is_ignored(site: Site, admin: Account) -> None:
    email = new_account(site)
    site.dev.run(
        *("curl", "--silent", "--fail", "--insecure", "--header", f"X-Forwarded-For: {CLIENT}"),
        *("--data-urlencode", f"username={email}", "--data-urlencode", f"password={PASSWORD}"),
        f"https://{site.dev.address}/auth/token",
    )
    own = site.dev.address
    eventually(lambda: logins_of(site, admin, email) == [own], "the login audited", within=60)
