"""Administration of accounts and workspaces over HTTP."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from src.models.permissions import Role
from src.models.user import User
from src.services.audit_logger import Action
from src.utils.pagination import encode_cursor
from tests.support.accounts import ask_login, bearer, is_logged_in, login, recording
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.server import PASSWORD, Backend, running
from tests.support.sse import sse
from tests.support.waiting import until

ADMIN = "admin@shield.test"
ALICE = "alice@shield.test"


WRONG: list[tuple[str, Any]] = [
    ("email", "no address"),
    ("email", "\u0430lice@shield.test"),  # a Cyrillic a
    ("email", "alice@shield.test\r\nBcc: x@shield.test"),
    ("email", "a\0@shield.test"),
    ("email", "x" * 400 + "@shield.test"),
    ("email", None),
    ("password", "short"),
    ("password", "password1234"),
    ("password", "x" * 100_000),
    ("password", "liddell-alice-12"),
    ("role", "root"),
    ("role", "'; DROP TABLE users; --"),
    ("name", "a\nb"),
    ("name", "x" * 201),
    ("name", ""),
    ("memberships", [{"workspace": "../x", "role": "viewer"}]),
    ("memberships", [{"workspace": "a\0", "role": "viewer"}]),
    ("memberships", [{"workspace": "red", "role": "viewer"}] * 31),
]


@dataclass
class AdminContext:
    """Sends requests to the administration API as one administrator."""

    backend: Backend
    admin: User

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = bearer(self.backend.token_of(self.admin))
        return await self.backend.http.request(method, f"/admin{path}", headers=headers, json=body)

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def of(self, admin: User) -> "AdminContext":
        return AdminContext(self.backend, admin)


@pytest.fixture
async def context(backend: Backend) -> AdminContext:
    return AdminContext(backend, await backend.add_user(ADMIN, Role.ADMIN))


def emails(page: Any) -> list[str]:
    return [one["email"].split("@")[0] for one in page["items"]]


class TestAccounts:
    async def test_created_account_works_and_is_recorded(
        self, context: AdminContext, backend: Backend, environment: Environment
    ) -> None:
        memberships = [{"workspace": f"secret-{n}", "role": "contributor"} for n in range(30)]
        for one in memberships:
            await context.ask("POST", "/workspaces", {"name": one["workspace"]})
        memberships.sort(key=lambda one: one["workspace"])
        body = {
            "email": " Alice@Shield.TEST ",
            "password": "some rather unusual words",
            "role": "contributor",
            "name": "Alice Liddell",
            "memberships": memberships,
        }
        answer = await context.ask("POST", "/users", body)
        assert answer.status_code == 201, answer.text
        created = answer.json()
        assert {key: created[key] for key in created if key not in {"id", "created_at"}} == {
            "email": ALICE,
            "name": "Alice Liddell",
            "role": "contributor",
            "active": True,
            "locked_until": None,
            "second_factor": False,
            "memberships": memberships,
        }
        assert await context.get(f"/users/{created['id']}") == created
        await login(backend, ALICE, "some rather unusual words")
        (entry,) = await environment.query("SELECT * FROM audit_log WHERE action = 'user.create'")
        assert (entry["actor_id"], entry["target"]) == (context.admin.id, f"user:{created['id']}")
        details = {"email": ALICE, "role": "contributor", "memberships": memberships}
        assert orjson.loads(entry["details"]) == details
        (error,) = check_problem(await context.ask("POST", "/users", body), 409, "account-exists")[
            "errors"
        ]
        assert error["field"] == "body.email"

    async def test_invalid_account_is_refused_without_effect(
        self, context: AdminContext, environment: Environment
    ) -> None:
        good = {"email": ALICE, "password": PASSWORD, "name": "Alice Liddell"}
        for field, value in WRONG:
            answer = await context.ask("POST", "/users", good | {field: value})
            weak = field == "password" and len(value) < 4096
            slug = "password-rejected" if weak else "invalid-request"
            (error, *_) = check_problem(answer, 422, slug)["errors"]
            assert error["field"].startswith(f"body.{field}")
        assert await environment.query("SELECT email FROM users") == [(ADMIN,)]

    async def test_invalid_membership_is_reported(
        self, context: AdminContext, environment: Environment
    ) -> None:
        await context.ask("POST", "/workspaces", {"name": "red"})
        for wrong in ("blue", "default", "red"):
            memberships = [{"workspace": name, "role": "viewer"} for name in ("red", wrong)]
            body = {"email": ALICE, "password": PASSWORD, "memberships": memberships}
            answer = await context.ask("POST", "/users", body)
            (error,) = check_problem(answer, 422, "invalid-request")["errors"]
            assert error["field"] == "body.memberships.1.workspace"
        assert await environment.query("SELECT email FROM users") == [(ADMIN,)]

    async def test_normalised_addresses_are_unique(
        self, context: AdminContext, environment: Environment
    ) -> None:
        same = ["alice@bücher.test", "ALICE@BÜCHER.test", "alice@xn--bcher-kva.test"]
        answers = [
            await context.ask("POST", "/users", {"email": email, "password": PASSWORD})
            for email in same
        ]
        assert [answer.status_code for answer in answers] == [201, 409, 409]
        assert answers[0].json()["email"] == "alice@xn--bcher-kva.test"
        # A look-alike letter of another script makes a different domain, which the response shows.
        other = await context.ask(
            "POST", "/users", {"email": "alice@b\u00fcch\u0435r.test", "password": PASSWORD}
        )
        assert other.status_code in {201, 422}
        rows = await environment.query("SELECT email FROM users")
        assert all(row["email"].isascii() for row in rows)

    async def test_concurrent_creation_makes_one_account(
        self, context: AdminContext, environment: Environment
    ) -> None:
        body = {"email": ALICE, "password": PASSWORD}
        answers = await asyncio.gather(*(context.ask("POST", "/users", body) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        assert len(await environment.query("SELECT * FROM users")) == 2

    async def test_search_filters_and_pagination(
        self, context: AdminContext, environment: Environment
    ) -> None:
        for n in range(7):
            await environment.query(
                "INSERT INTO users (id, email, name, password_hash, role, active) "
                "VALUES ($1, $2, $3, '', $4, $5)",
                uuid4(),
                f"user-{n}@shield.test",
                "Ada 100%" if n == 3 else None,
                "viewer" if n % 2 else "contributor",
                n != 5,
            )
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query = f"?limit=3&cursor={cursor}" if cursor else "?limit=3"
            page = await context.get(f"/users{query}")
            found += emails(page)
            cursor = page["next_cursor"]
        assert found == ["admin", *(f"user-{n}" for n in range(7))]
        for query, names in {
            "search=ADA": ["user-3"],
            "search=100%25": ["user-3"],
            "search=%25": ["user-3"],
            "search=_": [],
            "search=USER-1": ["user-1"],
            "search=' OR 1=1 --": [],
            "role=viewer": ["user-1", "user-3", "user-5"],
            "active=false": ["user-5"],
            "active=false&role=contributor": [],
        }.items():
            assert emails(await context.get(f"/users?{query}")) == names, query
        for query in ("search=%00", "role=root", "active=perhaps", "limit=0", "limit=201"):
            answer = await context.ask("GET", f"/users?{query}")
            (error,) = check_problem(answer, 422, "invalid-request")["errors"]
            assert error["field"] == f"query.{query.partition('=')[0]}"
        for cursor in (encode_cursor("jobs", "2026", "a"), "x", "AAAA", "%C3%BC", "//8="):
            answer = await context.ask("GET", f"/users?cursor={cursor}")
            (error,) = check_problem(answer, 400, "bad-cursor")["errors"]
            assert error["field"] == "query.cursor"

    async def test_other_roles_are_refused(self, context: AdminContext, backend: Backend) -> None:
        alice = await backend.add_user(ALICE, Role.CONTRIBUTOR)
        path = f"/users/{alice.id}"
        routes = [
            ("GET", "/users"),
            ("POST", "/users"),
            ("GET", path),
            ("PUT", f"{path}/role"),
            ("POST", f"{path}/deactivate"),
            ("GET", f"{path}/sessions"),
            ("DELETE", f"{path}/sessions"),
            ("DELETE", f"{path}/sessions/{alice.id}"),
            ("GET", "/workspaces"),
            ("PUT", f"/workspaces/default/members/{alice.id}"),
        ]
        for method, route in routes:
            answer = await context.of(alice).ask(method, route, {"role": "admin"})
            check_problem(answer, 403, "not-permitted")
            anonymous = await backend.http.request(method, f"/admin{route}")
            check_problem(anonymous, 401, "not-authenticated")

    async def test_unknown_account_id(self, context: AdminContext) -> None:
        for method, end in (("GET", ""), ("POST", "/deactivate"), ("DELETE", "/second-factor")):
            answer = await context.ask(method, f"/users/{uuid4()}{end}")
            check_problem(answer, 404, "account-not-found")
            answer = await context.ask(method, f"/users/x{end}")
            check_problem(answer, 422, "invalid-request")


class TestChanges:
    async def test_changes_take_effect_immediately_and_are_recorded(
        self, context: AdminContext, backend: Backend, environment: Environment
    ) -> None:
        alice = await backend.add_user(ALICE)
        tokens = await login(backend, ALICE)
        path = f"/users/{alice.id}"
        async with recording() as events:
            answer = await context.ask("PUT", f"{path}/role", {"role": "contributor"})
            assert answer.json()["role"] == "contributor"
            # Setting the same role again is not a change.
            await context.ask("PUT", f"{path}/role", {"role": "contributor"})
            me = await backend.http.get("/auth/me", headers=bearer(tokens["access_token"]))
            assert me.json()["role"] == "contributor"
            for name in ("Alice A.", "Alice A.", None):
                answer = await context.ask("PUT", f"{path}/name", {"name": name})
                assert answer.json()["name"] == name
            assert (await context.ask("POST", f"{path}/deactivate")).json()["active"] is False
            assert not await is_logged_in(backend, tokens)
            check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
            await context.ask("POST", f"{path}/activate")
            # The terminated session stays invalid.
            assert not await is_logged_in(backend, tokens)
            tokens = await login(backend, ALICE)
            assert (await context.ask("DELETE", f"{path}/sessions")).status_code == 204
            assert not await is_logged_in(backend, tokens)
            await environment.query(
                "UPDATE login_sources SET failures = 7, locked_until = now() + interval '1 hour'"
                " WHERE user_id = $1",
                alice.id,
            )
            check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
            assert (await context.get(path))["locked_until"]
            assert (await context.ask("POST", f"{path}/unlock")).json()["locked_until"] is None
            await login(backend, ALICE)
        ours = [event for event in events if event.actor_id == context.admin.id]
        assert [event.action for event in ours] == [
            Action.ROLE_CHANGE,
            Action.USER_RENAME,
            Action.USER_RENAME,
            Action.USER_DEACTIVATE,
            Action.USER_ACTIVATE,
            Action.LOGOUT,
            Action.UNLOCK,
        ]
        assert {event.target for event in ours} == {f"user:{alice.id}"}
        assert (ours[0].details["from"], ours[0].details["to"]) == ("viewer", "contributor")

    async def test_sessions_are_listed_and_ended_individually(
        self, context: AdminContext, backend: Backend
    ) -> None:
        alice = await backend.add_user(ALICE)
        first, second = [await login(backend, ALICE) for _ in range(2)]
        path = f"/users/{alice.id}/sessions"
        # The last one is that of the fixture.
        newest, oldest, other = (await context.get(path))["items"]
        assert (newest["current"], newest["address"]) == (False, "127.0.0.1")
        (own,) = (await context.get(f"/users/{context.admin.id}/sessions"))["items"]
        assert own["current"]
        async with recording() as events:
            answer = await context.ask("DELETE", f"{path}/{own['id']}")
            check_problem(answer, 404, "session-not-found")
            assert (await context.ask("DELETE", f"{path}/{oldest['id']}")).status_code == 204
            answer = await context.ask("DELETE", f"{path}/{oldest['id']}")
            check_problem(answer, 404, "session-not-found")
        assert [await is_logged_in(backend, tokens) for tokens in (first, second)] == [False, True]
        assert (await context.get(path))["items"] == [newest, other]
        (event,) = [one for one in events if one.actor_id == context.admin.id]
        assert (event.action, event.target) == (Action.LOGOUT, f"user:{alice.id}")
        assert event.details["session"] == oldest["id"]
        answer = await context.ask("GET", f"/users/{uuid4()}/sessions")
        check_problem(answer, 404, "account-not-found")

    async def test_deactivation_ends_open_streams(
        self, context: AdminContext, backend: Backend, environment: Environment
    ) -> None:
        alice = await backend.add_user(ALICE)
        async with sse(backend.http, token=backend.token_of(alice)) as stream:
            (first,) = await environment.publish(shield_event(user=str(alice.id)))
            await stream.until(lambda it: it.ids == [str(first)])
            await context.ask("POST", f"/users/{alice.id}/deactivate")
            await stream.until_ended()

    async def test_last_administrator_is_kept(
        self, context: AdminContext, backend: Backend
    ) -> None:
        mine = f"/users/{context.admin.id}"
        check_problem(await context.ask("POST", f"{mine}/deactivate"), 409, "last-admin")
        demoted = await context.ask("PUT", f"{mine}/role", {"role": "viewer"})
        check_problem(demoted, 409, "last-admin")
        other = await backend.add_user("other@shield.test", Role.ADMIN)
        await context.ask("POST", f"/users/{other.id}/deactivate")
        # An inactive administrator does not count.
        demoted = await context.ask("PUT", f"{mine}/role", {"role": "viewer"})
        check_problem(demoted, 409, "last-admin")
        await context.ask("POST", f"/users/{other.id}/activate")
        demoted = await context.ask("PUT", f"{mine}/role", {"role": "viewer"})
        assert demoted.json()["role"] == "viewer"

    async def test_concurrent_mutual_removal_keeps_one_administrator(
        self, context: AdminContext, backend: Backend, environment: Environment
    ) -> None:
        for attempt in range(4):
            rival = await backend.add_user(f"rival-{attempt}@shield.test", Role.ADMIN)
            answers = await asyncio.gather(
                context.ask("PUT", f"/users/{rival.id}/role", {"role": "viewer"}),
                context.of(rival).ask("POST", f"/users/{context.admin.id}/deactivate"),
            )
            statuses = [answer.status_code for answer in answers]
            assert sorted(statuses) in ([200, 401], [200, 403], [200, 409])
            left = await environment.query("SELECT id FROM users WHERE role = 'admin' AND active")
            assert len(left) == 1
            await environment.query(
                "UPDATE users SET role = 'admin', active = true WHERE id = $1", context.admin.id
            )
            await environment.query("UPDATE users SET role = 'viewer' WHERE id = $1", rival.id)
            await environment.query("UPDATE sessions SET ended_at = NULL, ended_why = NULL")

    async def test_concurrent_role_changes_are_recorded(
        self, context: AdminContext, backend: Backend
    ) -> None:
        alice = await backend.add_user(ALICE)
        roles = ["contributor", "admin"] * 3
        async with recording() as events:
            await asyncio.gather(
                *(context.ask("PUT", f"/users/{alice.id}/role", {"role": role}) for role in roles)
            )
        now = (await context.get(f"/users/{alice.id}"))["role"]
        steps = {(event.details["from"], event.details["to"]) for event in events}
        assert all(before != after for before, after in steps)
        assert now in {"contributor", "admin"}
        assert any(after == now for _, after in steps)

    async def test_concurrent_role_changes_on_two_instances_are_serialised(
        self, context: AdminContext, backend: Backend, environment: Environment
    ) -> None:
        alice = await backend.add_user(ALICE)
        settings = environment.settings(REDIS_CONSUMER_NAME="host-8003")
        async with running(settings) as other:
            contexts = [context, AdminContext(other, context.admin)]
            answers = await asyncio.gather(
                *(
                    one.ask("PUT", f"/users/{alice.id}/role", {"role": role})
                    for one, role in zip(contexts, ("contributor", "admin"), strict=True)
                )
            )
        assert [answer.status_code for answer in answers] == [200, 200]
        rows = await environment.query("SELECT details FROM audit_log WHERE action = 'role.change'")
        details = [orjson.loads(row["details"]) for row in rows]
        step = {one["from"]: one["to"] for one in details}
        # Each change begins with the role that another one ended with, whichever was first.
        assert step.keys() - set(step.values()) == {"viewer"}
        assert step[step["viewer"]] == (await context.get(f"/users/{alice.id}"))["role"]


class TestWorkspaces:
    async def test_membership_life_cycle(self, context: AdminContext, backend: Backend) -> None:
        alice = await backend.add_user(ALICE)
        created = await context.ask("POST", "/workspaces", {"name": "red"})
        assert (created.status_code, created.json()["members"]) == (201, 0)
        check_problem(
            await context.ask("POST", "/workspaces", {"name": "red"}), 409, "workspace-exists"
        )
        token = backend.token_of(alice)
        path = f"/workspaces/red/members/{alice.id}"
        async with recording() as events:
            member = await context.ask("PUT", path, {"role": "contributor"})
            assert member.json() == {
                "id": str(alice.id),
                "user_id": str(alice.id),
                "email": ALICE,
                "name": None,
                "role": "contributor",
            }
            await context.ask("PUT", path, {"role": "contributor"})
            await context.ask("PUT", path, {"role": "admin"})
            me = await backend.http.get("/auth/me", headers=bearer(token))
            assert me.json()["memberships"] == [{"workspace": "red", "role": "admin"}]
            members = (await context.get("/workspaces/red/members"))["items"]
            assert [one["email"] for one in members] == [ALICE]
            workspaces = (await context.get("/workspaces"))["items"]
            listed = {one["name"]: one["members"] for one in workspaces}
            assert listed == {"default": 0, "red": 1}
            in_use = await context.ask("DELETE", "/workspaces/red")
            check_problem(in_use, 409, "workspace-in-use")
            assert (await context.ask("DELETE", path)).status_code == 204
            check_problem(await context.ask("DELETE", path), 404, "member-not-found")
            me = await backend.http.get("/auth/me", headers=bearer(token))
            assert me.json()["memberships"] == []
            assert (await context.ask("DELETE", "/workspaces/red")).status_code == 204
        changes = [
            (event.details["from"], event.details["to"])
            for event in events
            if event.action is Action.MEMBERSHIP_CHANGE
        ]
        assert changes == [(None, "contributor"), ("contributor", "admin"), ("admin", None)]
        assert events[-1].action is Action.WORKSPACE_DELETE
        assert events[-1].target == "workspace:red"

    async def test_invalid_workspace_operations_are_refused(
        self, context: AdminContext, backend: Backend, environment: Environment
    ) -> None:
        alice = await backend.add_user(ALICE)
        for name in ("", "a b", "../etc", "-x", "x" * 64, "r\0", "'; --", "rød"):
            answer = await context.ask("POST", "/workspaces", {"name": name})
            (error,) = check_problem(answer, 422, "invalid-request")["errors"]
            assert error["field"] == "body.name"
        default = f"/workspaces/default/members/{alice.id}"
        for method, body in (("PUT", {"role": "admin"}), ("DELETE", None)):
            answer = await context.ask(method, default, body)
            check_problem(answer, 409, "default-workspace")
        check_problem(await context.ask("DELETE", "/workspaces/default"), 409, "workspace-in-use")
        nobody = UUID(int=0)
        await context.ask("POST", "/workspaces", {"name": "red"})
        for method, path, slug in (
            ("DELETE", "/workspaces/none", "workspace-not-found"),
            ("GET", "/workspaces/none/members", "workspace-not-found"),
            ("PUT", f"/workspaces/none/members/{alice.id}", "workspace-not-found"),
            ("PUT", f"/workspaces/red/members/{nobody}", "account-not-found"),
        ):
            check_problem(await context.ask(method, path, {"role": "viewer"}), 404, slug)
        await environment.publish(shield_event(workspace="red"))
        await until(environment.settled)
        check_problem(await context.ask("DELETE", "/workspaces/red"), 409, "workspace-in-use")
        assert await environment.query("SELECT * FROM memberships") == []
