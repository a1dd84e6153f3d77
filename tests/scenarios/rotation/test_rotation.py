"""Secrets are rotated under load: no request fails, nobody is logged out, and an interruption is healed by another run."""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyotp
import pytest

from tests.scenarios.support.deployment import deploy
from tests.scenarios.support.http import request
from tests.scenarios.support.releases import check_succeeded
from tests.scenarios.support.request_load import RequestLoad
from tests.scenarios.support.rotation import interrupt, rotate
from tests.scenarios.support.site import PASSWORD, Site

if TYPE_CHECKING:
    from tests.scenarios.support.http import Answer
    from tests.scenarios.support.site import Account

KEYS = {
    "jwt_secret": "JWT_SECRET",
    "mfa_key": "MFA_KEY",
    "audit_key": "AUDIT_KEY",
    "metrics_token": "METRICS_TOKEN",
    "proxy_key": "PROXY_KEY",
}
# Tasks at which a rotation is killed: before the first release, between both, and before its conclusion.
INTERRUPTIONS = [
    "Release what accepts",
    "Switch to the new values",
    "Report the second phase",
    "Store the state",
]
NEW = {"database": "new-of-database/@$'", "owner": "new-of-owner/@$'", "redis": "new-of-redis/@$'"}


def me(site: Site, token: str) -> int:
    return request(site.proxy, "GET", "/auth/me", token=token).status


def settings(inventory: str) -> dict[str, str]:
    """Return the settings of the release that runs now."""
    return Site(inventory).settings


def post(site: Site, path: str, token: str = "", **body: str) -> Answer:
    headers = {"Content-Type": "application/json"}
    sent = json.dumps(body).encode()
    return request(site.proxy, "POST", path, token=token or None, body=sent, headers=headers)


@pytest.fixture(scope="module")
def factor(site: Site) -> tuple[str, str]:
    """Return the address of an account with a second factor, and its secret."""
    account = site.account("second-factor@example.com", "viewer")
    secret = post(site, "/auth/mfa/setup", account.token, password=PASSWORD).json()["secret"]
    confirmed = post(site, "/auth/mfa/confirm", account.token, code=pyotp.TOTP(secret).now())
    assert confirmed.status == 200, confirmed
    return account.email, secret


def any_certificate() -> ssl.SSLContext:
    """Return a context for clients that do not verify the certificate, because it changes."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def stored_factors(site: Site) -> list[str]:
    return site.sql("SELECT sealed_secret FROM second_factors ORDER BY user_id")


def rotation_state(site: Site) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(site.dev.run("cat", "/etc/ag-ui/secrets/rotation.json"))
    return state


def test_generated_secrets_rotate_over_interruptions(
    site: Site, inventory: str, user: Account, factor: tuple[str, str]
) -> None:
    before, sealed = settings(inventory), stored_factors(site)
    variables = {"ag_ui_rotate": "jwt,mfa,audit,metrics,proxy"}
    with RequestLoad(site.proxy, "/auth/me", user.token) as load:
        for task in INTERRUPTIONS:
            interrupt(inventory, variables, task)
            assert me(site, user.token) == 200
        # A deployment in the middle keeps what was begun.
        check_succeeded(deploy(inventory))
        assert me(site, user.token) == 200
        done = rotate(inventory, variables)
        check_succeeded(done)
    assert load.failed == []
    after = settings(inventory)
    for name, setting in KEYS.items():
        assert after[setting] != before[setting], name
        assert site.dev.run("cat", f"/etc/ag-ui/secrets/{name}").strip() == after[setting]
        assert after[setting] not in done.output
    assert after["JWT_PREVIOUS_SECRETS"] == before["JWT_SECRET"]
    # Nobody is logged out, second factors and the audit log are read with the new keys.
    assert me(site, user.token) == 200
    assert stored_factors(site) != sealed
    email, secret = factor
    site.sql("UPDATE second_factors SET last_step = NULL")
    login = post(site, "/auth/login", email=email, password=PASSWORD, otp=pyotp.TOTP(secret).now())
    assert login.status == 200, login
    assert "are whole" in site.cli("audit", "verify")
    changes = site.sql("SELECT details FROM audit_log WHERE action = 'settings.change'")
    assert any("AUDIT_KEY" in change and "JWT_SECRET" in change for change in changes)


def test_repeated_rotation_changes_nothing_while_former_keys_are_accepted(
    site: Site, inventory: str
) -> None:
    before, containers = rotation_state(site), site.containers()
    # Not the key of the proxy: its former value is accepted for a minute only.
    done = rotate(inventory, {"ag_ui_rotate": "jwt,mfa,audit,metrics"})
    check_succeeded(done)
    assert rotation_state(site) == before
    assert site.containers() == containers
    assert "accepted until" in done.output


def test_former_keys_are_removed_after_their_time(
    site: Site, inventory: str, user: Account
) -> None:
    state = rotation_state(site)
    # Except that of the audit log, which the newest checkpoint may still need.
    for name in state.keys() - {"audit_key"}:
        for accepted in state[name]["accepted"]:
            accepted["until"] = 1
    site.dev.run("sh", "-c", "cat >/etc/ag-ui/secrets/rotation.json", send=json.dumps(state))
    token = site.account(user.email, user.role).token
    with RequestLoad(site.proxy, "/auth/me", token) as load:
        done = rotate(inventory, {"ag_ui_rotate_finish": True})
    check_succeeded(done)
    assert load.failed == []
    kept = [name for name in settings(inventory) if "_PREVIOUS_" in name]
    assert kept == ["AUDIT_PREVIOUS_KEYS"]
    assert me(site, token) == 200


@pytest.fixture
def passwords(site: Site) -> dict[str, dict[str, object]]:
    """Return the variables for the new passwords, and for those of before."""
    old = {
        "database": site.secrets["password of PostgreSQL"],
        "owner": site.secrets["password of the tables' owner"],
        "redis": site.secrets["password of Redis"],
    }
    return {"new": _variables(NEW, old), "back": _variables(old, NEW)}


def _variables(new: dict[str, str], old: dict[str, str]) -> dict[str, object]:
    names = {"database": "database", "owner": "database_owner", "redis": "redis"}
    return {
        f"{role}_{names[kind]}_{word}": values[kind]
        for role in ("ag_ui", "shield_datastores")
        for kind in names
        for word, values in (("password", new), ("previous_password", old))
    }


def test_passwords_rotate_over_interruptions_and_back(
    site: Site, inventory: str, user: Account, passwords: dict[str, dict[str, object]]
) -> None:
    selected = {"ag_ui_rotate": "database,database_owner,redis"}
    # The key of the first token was removed.
    token = site.account(user.email, user.role).token
    for direction, variables in passwords.items():
        with RequestLoad(site.proxy, "/auth/me", token) as load:
            if direction == "new":
                for task in INTERRUPTIONS:
                    interrupt(inventory, selected | variables, task)
                    assert me(site, token) == 200
                # A deployment in the middle keeps what was begun.
                check_succeeded(deploy(inventory, variables))
            done = rotate(inventory, selected | variables)
            check_succeeded(done)
            finished = rotate(
                inventory, variables | {"ag_ui_rotate": "redis", "ag_ui_rotate_finish": True}
            )
            check_succeeded(finished)
        assert load.failed == []
        now = settings(inventory)
        assert "DATABASE_PREVIOUS_PASSWORD" not in now
        # The former password of Redis is refused, also after a restart.
        former = str(variables["ag_ui_redis_previous_password"])
        site.datastores.systemctl("restart", "redis-server.service")
        site.wait_until_healthy()
        refused = site.datastores.host.run("redis-cli -a %s ping", former)
        assert "WRONGPASS" in refused.stdout + refused.stderr
        assert not [value for value in variables.values() if str(value) in done.output]
    Site(inventory).wait_until_healthy()


def test_changed_key_without_the_former_one_is_refused(site: Site, inventory: str) -> None:
    running = site.containers()
    done = deploy(inventory, {"ag_ui_mfa_key": "n" * 48})
    assert done.code != 0, done.output
    assert "ag_ui_mfa_previous_keys" in done.message
    assert site.containers() == running


# The last test, because the fixture `site` trusts the former certificate.
def test_certificate_is_replaced_without_a_failed_request(
    site: Site, inventory: str, user: Account
) -> None:
    before = site.dev.run("cat", "/etc/ag-ui/tls/server.crt")
    token = site.account(user.email, user.role).token
    with RequestLoad(replace(site.proxy, tls=any_certificate()), "/auth/me", token) as load:
        check_succeeded(rotate(inventory, {"ag_ui_rotate": "tls"}))
    assert load.failed == []
    assert site.dev.run("cat", "/etc/ag-ui/tls/server.crt") != before
    Site(inventory).wait_until_healthy()
