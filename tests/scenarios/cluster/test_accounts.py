"""What one host has issued is valid at the other: tokens, cookies, second factors and the audit log."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pyotp

from roles.ag_ui_deployment.files.backend.tests.run_checker import check_run
from tests.scenarios.support.api_client import run_input, text_of
from tests.scenarios.support.gateway import Gateway
from tests.scenarios.support.http import EventStream, read_to_end, request
from tests.scenarios.support.site import PASSWORD

if TYPE_CHECKING:
    from tests.scenarios.cluster.cluster import ClusterSite
    from tests.scenarios.support.http import Answer
    from tests.scenarios.support.site import Account

STEP = 30
"""Seconds for which a one-time password is shown."""


def post(site: ClusterSite, path: str, token: str | None = None, **body: Any) -> Answer:
    return request(
        site.proxy,
        "POST",
        path,
        token=token,
        body=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )


class Browser:
    """Keeps the cookies of a page of the site, whichever host has set them."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    def send(self, site: ClusterSite, method: str, path: str, **body: Any) -> httpx.Response:
        proxy = site.proxy
        headers = {
            "Host": proxy.server_name,
            "Origin": f"https://{proxy.server_name}",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
        }
        with httpx.Client(verify=proxy.tls) as client:
            answer = client.request(
                method,
                f"https://{proxy.address}{path}",
                headers=headers,
                json=body or None,
                extensions={"sni_hostname": proxy.server_name},
            )
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        return answer


def test_hosts_have_the_same_secrets(hosts: list[ClusterSite]) -> None:
    command = "cd /etc/ag-ui/secrets && sha256sum *"
    first, second = (host.dev.run("sh", "-c", command) for host in hosts)
    assert first == second


def test_token_is_valid_at_both_hosts(hosts: list[ClusterSite], user: Account) -> None:
    for issuer in hosts:
        login = post(issuer, "/auth/login", email=user.email, password=PASSWORD).json()
        for host in hosts:
            # Its own instance, since the proxy may ask the other host.
            for route in host.routes:
                answer = request(route, "GET", "/auth/me", token=login["access_token"])
                assert (answer.status, answer.json()["id"]) == (200, user.id)
        [host] = [host for host in hosts if host is not issuer]
        renewed = post(host, "/auth/refresh", refresh_token=login["refresh_token"])
        assert renewed.status == 200


def test_cookies_are_valid_at_both_hosts(
    site: ClusterSite, other: ClusterSite, user: Account
) -> None:
    browser = Browser()
    login = browser.send(
        site, "POST", "/auth/login", email=user.email, password=PASSWORD, cookies=True
    )
    assert login.status_code == httpx.codes.OK, login.text
    assert browser.send(other, "GET", "/auth/me").json()["id"] == user.id
    assert browser.send(other, "POST", "/auth/refresh").is_success
    assert browser.send(site, "GET", "/auth/me").json()["id"] == user.id
    assert browser.send(other, "POST", "/auth/logout").is_success
    assert browser.send(site, "GET", "/auth/me").status_code == httpx.codes.UNAUTHORIZED


def test_second_factor_of_one_host_is_required_at_the_other(
    site: ClusterSite, other: ClusterSite
) -> None:
    account = site.account("second.factor@example.com", "viewer")
    setup = post(site, "/auth/mfa/setup", account.token, password=PASSWORD).json()
    codes = pyotp.TOTP(setup["secret"])
    confirmed = post(site, "/auth/mfa/confirm", account.token, code=codes.now())
    assert confirmed.status == 200, confirmed
    login = {"email": account.email, "password": PASSWORD}
    refused = post(other, "/auth/login", **login)
    assert (refused.status, "second-factor-required" in refused.json()["type"]) == (401, True)
    # A code is valid once, and that of the next step is accepted already.
    accepted = post(other, "/auth/login", **login, otp=codes.at(time.time() + STEP))
    assert accepted.status == 200, accepted


def test_audit_chain_of_both_hosts_verifies_at_both(
    hosts: list[ClusterSite], admin: Account
) -> None:
    before = 0
    for host in hosts:
        for route in host.instances:
            # A failed login, recorded by this instance.
            form = {"username": "nobody@example.com", "password": PASSWORD}
            assert request(route, "POST", "/auth/token", form=form).status == 401
        for proxy in (each.proxy for each in hosts):
            found = request(proxy, "GET", "/admin/audit/verify", token=admin.token).json()
            assert (found["intact"], found["broken"]) == (True, None)
        assert found["last_seq"] > before
        before = found["last_seq"]


def test_run_of_one_host_is_followed_at_the_other(
    site: ClusterSite, other: ClusterSite, user: Account
) -> None:
    Gateway(site.gateway).wait_until_up()
    with EventStream(
        site.instances[0], "/agent", user.token, body=run_input("one two three")
    ) as first:
        first.wait(lambda it: it.events, "the start of the run", within=60)
        path = f"/agent/runs/{check_run(first.events).run_id}/events"
        with EventStream(other.instances[0], path, user.token) as following:
            read_to_end(following, within=60)
            read_to_end(first, within=60)
    assert text_of(following.events) == text_of(first.events) != ""
