"""Every route, called in every role on own and others' resources in all workspaces.

The expected results derive from the matrix alone; a route fails that has no rule, or a parameter
without samples.
"""

import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_DNS, UUID, uuid4, uuid5

import pytest

from src.main import create_app
from src.models.account import AccountTokenRow, LinkPurpose
from src.models.conversation import RunRow, RunStatus, ThreadRow
from src.models.event import DeadLetterRow, ShieldEvent
from src.models.job import JobRow, JobStatus
from src.models.permissions import Permission, PermissionScope, Role
from src.models.session import SessionRow
from src.models.upload import UploadRow
from src.models.user import User, UserRow
from src.models.workspace import MembershipRow, WorkspaceRow
from src.services.auth.tokens import TokenService
from src.services.rbac_service import MATRIX
from src.utils.database import Base
from src.web.route_rules import RouteRule, rules_of
from tests.run_checker import check_feed
from tests.support.accounts import bearer
from tests.support.agent import run_input
from tests.support.builders import settings_of, shield_event
from tests.support.environment import Environment
from tests.support.server import Backend, running
from tests.support.sse import sse
from tests.support.uploads import OCTETS, TUS, make_empty

# The workspaces of each caller, with the role in each; nobody is a member of blue.
CALLERS: Mapping[str, tuple[Role, Mapping[str, Role]]] = {
    "viewer": (Role.VIEWER, {}),
    "contributor": (Role.CONTRIBUTOR, {"red": Role.VIEWER}),
    "viewer, contributor in red": (Role.VIEWER, {"red": Role.CONTRIBUTOR}),
    "viewer, admin of red": (Role.VIEWER, {"red": Role.ADMIN}),
    "admin": (Role.ADMIN, {}),
}
OTHER = "somebody else"
# The stored log of a run that has ended.
_LOG = zlib.compress(b'{"type":"RUN_STARTED"}\n{"type":"RUN_FINISHED"}')
WORKSPACES = ("default", "red", "blue")


@dataclass(frozen=True)
class Resource:
    """A resource in a path: its owner, its workspace, and the permissions to access it.

    `read` is None if only the owner can see it. `needed`, if set, is the permission that its use
    requires in addition to the route's. A resource without an owner is visible to all who may use
    the
    route.
    """

    name: str
    owner: str | None = None
    workspace: str = "default"
    read: Permission | None = None
    needed: Permission | None = None
    exists: bool = True


@dataclass(frozen=True)
class Caller:
    name: str
    user: User
    roles: Mapping[str, Role]

    def permission_scope(self, permission: Permission, workspace: str) -> PermissionScope:
        """Return the scope according to the matrix."""
        if self.user.role is Role.ADMIN:
            return PermissionScope.EVERYTHING
        role = self.roles.get(workspace)
        if role is None:
            return PermissionScope.NONE
        return MATRIX[role].get(permission, PermissionScope.NONE)

    def may(self, permission: Permission, resource: Resource) -> bool:
        permission_scope = self.permission_scope(permission, resource.workspace)
        return permission_scope in (PermissionScope.WORKSPACE, PermissionScope.EVERYTHING) or (
            permission_scope is PermissionScope.OWN and resource.owner in (None, self.name)
        )

    def knows(self, resource: Resource) -> bool:
        if not resource.exists:
            return False
        if resource.read is None:
            return resource.owner in (None, self.name)
        return self.may(resource.read, resource)

    def may_anywhere(self, permission: Permission) -> bool:
        return any(
            self.permission_scope(permission, workspace) is not PermissionScope.NONE
            for workspace in WORKSPACES
        )


def _slug(name: str) -> str:
    return re.sub("[^a-z]+", "-", name)


def resources_of_all_users(read: Permission) -> list[Resource]:
    owners = (*CALLERS, OTHER)
    return [
        *(
            Resource(f"{_slug(owner)}-in-{workspace}", owner, workspace, read)
            for owner in owners
            for workspace in WORKSPACES
        ),
        Resource("none", read=read, exists=False),
    ]


JOBS = resources_of_all_users(Permission.READ_JOBS)
CONVERSATIONS = resources_of_all_users(Permission.READ_AGENT_RUNS)
UPLOADS = [
    *(Resource(owner, owner) for owner in (*CALLERS, OTHER)),
    Resource("none", exists=False),
]
SESSIONS = [Resource(owner, owner) for owner in (*CALLERS, OTHER)]

# Resources by the path up to and including the parameter. The name of a resource is its value in
# the path, except for accounts and sessions, which have ids.
SAMPLES: Mapping[str, Sequence[Resource]] = {
    "/api/jobs/{job_id}": JOBS,
    "/agent/runs/{run_id}": CONVERSATIONS,
    "/agent/threads/{thread_id}": CONVERSATIONS,
    "/auth/sessions/{session_id}": SESSIONS,
    "/api/uploads/{upload_id}": UPLOADS,
    "/api/tools/{name}": [
        Resource("crawl_web", needed=Permission.USE_WRITING_TOOLS),
        Resource("lightrag_query", needed=Permission.USE_QUERY_TOOLS),
        Resource("no_such_tool", exists=False),
    ],
    "/admin/users/{user_id}": [Resource(OTHER), Resource("nobody", exists=False)],
    "/admin/users/invitations/{invitation_id}": [
        Resource("invitation"),
        Resource("withdrawn", exists=False),
    ],
    "/admin/stream/dead-letters/{letter_id}": [
        Resource("1700000000000-1"),
        Resource("1700000000000-2", exists=False),
    ],
    "/admin/workspaces/{name}": [Resource("green"), Resource("nowhere", exists=False)],
    "/docs/{name}": [Resource("initializer.js"), Resource("nothing.js", exists=False)],
    "/redoc/{name}": [Resource("initializer.js"), Resource("nothing.js", exists=False)],
    "/console/{path:path}": [Resource("jobs"), Resource("assets/nothing.js", exists=False)],
}
# Bodies that are necessary for a route to check the resource or the caller.
BODIES: Mapping[tuple[str, str], Any] = {
    ("POST", "/auth/logout"): None,
    ("PUT", "/admin/users/{user_id}/role"): {"role": "viewer"},
    ("PUT", "/admin/users/{user_id}/name"): {"name": "Somebody"},
    ("PUT", "/agent/threads/{thread_id}/title"): {"title": "Another title"},
    ("PUT", "/admin/workspaces/{name}/members/{user_id}"): {"role": "viewer"},
}


@dataclass(frozen=True)
class WorkspaceCall:
    """A call that names its workspace in the body, or in the query if there is no body.

    `asked` is the permission that the route requires in any workspace, `needed` the one that the
    call
    requires in this workspace.
    """

    method: str
    path: str
    asked: Permission
    needed: Permission
    body: Callable[[str], Any] | None = None


def with_workspace(**arguments: Any) -> Callable[[str], Any]:
    return lambda workspace: {**arguments, "workspace": workspace}


_QUERY, _WRITE = Permission.USE_QUERY_TOOLS, Permission.USE_WRITING_TOOLS
_RUN = Permission.RUN_AGENT
USES = [
    WorkspaceCall("GET", "/api/tools", _QUERY, _QUERY),
    WorkspaceCall("POST", "/api/query", _QUERY, _QUERY, with_workspace(query="?")),
    WorkspaceCall("POST", "/api/crawl", _WRITE, _WRITE, with_workspace(url="http://8.8.8.8/")),
    WorkspaceCall("POST", "/api/ingest", _WRITE, _WRITE, with_workspace(file_path="/a")),
    *(
        WorkspaceCall(
            "POST", f"/api/tools/{name}", _QUERY, needed, with_workspace(arguments=arguments)
        )
        for name, needed, arguments in (
            ("qdrant_find", _QUERY, {"query": "?"}),
            ("qdrant_store", _WRITE, {"text": "?"}),
        )
    ),
    WorkspaceCall(
        "POST", "/agent", _RUN, _RUN, lambda it: run_input("?", forwardedProps={"workspace": it})
    ),
]


def samples_of(path: str) -> Sequence[Resource | None]:
    """Return the resources that a path may name."""
    first, *_ = re.findall(r"\{[^}]*\}", path) or [None]
    if first is None:
        return [None]
    prefix = path[: path.index(first) + len(first)]
    if prefix not in SAMPLES:
        pytest.fail(f"{path}: add resources that {prefix} may name to SAMPLES in {__file__}")
    return SAMPLES[prefix]


def samples_for(rule: RouteRule, caller: Caller | None) -> Sequence[Resource | None]:
    """Return one sample if the choice does not matter, else own and another user's ones."""
    samples = samples_of(rule.path)
    if caller is None or (rule.permission and not caller.may_anywhere(rule.permission)):
        return samples[:1]
    return [one for one in samples if one is None or one.owner in (None, caller.name, OTHER)]


def expected(rule: RouteRule, caller: Caller | None, resource: Resource | None) -> int | None:
    """Return the expected status; None for any status of the route itself."""
    if caller is None:
        return 401 if rule.needs_login else None
    if rule.permission is not None and not caller.may_anywhere(rule.permission):
        return 403
    # OPTIONS describes the server, whether or not the resource exists.
    if resource is None or rule.method == "OPTIONS":
        return None
    if not caller.knows(resource):
        return 404
    for needed in (rule.permission, resource.needed):
        if needed is not None and not caller.may(needed, resource):
            return 403
    return None


class PermissionHarness:
    """The backend with all resources, which are restored after each call that could change them."""

    def __init__(self, backend: Backend, environment: Environment) -> None:
        self._backend = backend
        self._environment = environment
        self._users = {name: uuid4() for name in (*CALLERS, OTHER)}
        self._sessions = {name: uuid4() for name in self._users}
        self._uploads = {one.name: uuid4() for one in UPLOADS}
        self._tokens: dict[str, str] = {}

    async def prepare(self) -> None:
        self._tokens.clear()
        for table in (
            "users",
            "account_tokens",
            "workspaces",
            "jobs",
            "agent_runs",
            "dead_letters",
        ):
            await self._environment.query(f"DELETE FROM {table}")  # noqa: S608 - the names above
        async with self._backend.services.database.transaction() as session:
            for rows in self._rows():
                session.add_all(rows)
                await session.flush()
        for upload_id in self._uploads.values():
            make_empty(Path(self._backend.settings.UPLOADS_DIRECTORY) / f"{upload_id}.part")

    def callers(self) -> Iterator[Caller | None]:
        yield None
        for name, (role, memberships) in CALLERS.items():
            user = User(id=self._users[name], email=_email(name), role=role)
            yield Caller(name, user, {"default": role, **memberships})

    def named_callers(self) -> list[Caller]:
        return [caller for caller in self.callers() if caller is not None]

    async def status(
        self, rule: RouteRule, caller: Caller | None, resource: Resource | None
    ) -> int:
        headers = bearer(await self.token(caller)) if caller else {}
        if rule.path.startswith("/api/uploads"):
            # Without Upload-Length: an upload that begins names its workspace in a header.
            headers |= TUS | OCTETS | {"Upload-Offset": "0"}
        body = BODIES.get((rule.method, rule.path), None if rule.method == "GET" else {})
        path = re.sub(r"\{([^}]*)\}", lambda it: self._in_path(it[1], resource), rule.path)
        # These ids are scoped to a user.
        owner_query = (
            {"owner": str(self._users[resource.owner])}
            if resource in CONVERSATIONS and resource.owner
            else {}
        )
        # The status of a stream is known from its start.
        async with self._backend.http.stream(
            rule.method, path, headers=headers, json=body, params=owner_query
        ) as response:
            status = response.status_code
        if rule.method != "GET" and status not in {401, 403, 404, 422}:
            await self.prepare()
        return status

    async def get(self, caller: Caller, path: str, **query: Any) -> Any:
        headers = bearer(await self.token(caller))
        return (await self._backend.http.get(path, params=query, headers=headers)).json()

    async def call_in(self, caller: Caller, use: WorkspaceCall, workspace: str) -> int:
        """Return the status of a call that names its workspace."""
        headers = bearer(await self.token(caller))
        query = {"workspace": workspace} if use.body is None else None
        body = use.body and use.body(workspace)
        async with self._backend.http.stream(
            use.method, use.path, headers=headers, params=query, json=body
        ) as response:
            return response.status_code

    async def feed(self, caller: Caller) -> set[str]:
        """Publish an event of each job, the caller's own last; return the jobs in their feed."""
        every = [one for one in JOBS if one.exists]
        every += [one for one in every if (one.owner, one.workspace) == (caller.name, "default")]
        async with sse(self._backend.http, token=await self.token(caller)) as stream:
            ids = await self._environment.publish(*(self._event(one) for one in every))
            await stream.until(lambda it: str(ids[-1]) in it.ids)
            return set(check_feed(stream.events))

    def _event(self, job: Resource) -> ShieldEvent:
        owner = str(self._users[job.owner or OTHER])
        return shield_event("job:progress", job=job.name, user=owner, workspace=job.workspace)

    def _in_path(self, parameter: str, resource: Resource | None) -> str:
        assert resource is not None
        if parameter == "invitation_id":
            return str(_invitation_id(resource.name))
        if parameter == "upload_id":
            return str(self._uploads[resource.name])
        if parameter == "session_id":
            return str(self._sessions.get(resource.name, uuid4()))
        if parameter == "user_id":
            # In a path below a workspace: its only member.
            is_user = resource.name in self._users or resource.name == "nobody"
            return str(self._users.get(resource.name if is_user else OTHER, uuid4()))
        return quote(resource.name)

    async def token(self, caller: Caller) -> str:
        """Return a token of a session outside the resources, since a call may end those."""
        if caller.name not in self._tokens:
            row = _session(uuid4(), caller.user.id)
            async with self._backend.services.database.transaction() as session:
                session.add(row)
            self._tokens[caller.name] = TokenService(self._backend.settings).issue(
                caller.user, row.id
            )
        return self._tokens[caller.name]

    def _rows(self) -> Iterator[list[Base]]:
        roles = {name: role for name, (role, _) in CALLERS.items()} | {OTHER: Role.CONTRIBUTOR}
        yield [
            UserRow(id=user, email=_email(name), password_hash="", role=roles[name])
            for name, user in self._users.items()
        ]
        yield [WorkspaceRow(name=name) for name in (*WORKSPACES, "green")]
        yield [MembershipRow(user_id=self._users[OTHER], workspace="green", role=Role.VIEWER)]
        yield [
            MembershipRow(user_id=self._users[name], workspace=workspace, role=role)
            for name, (_, memberships) in CALLERS.items()
            for workspace, role in memberships.items()
        ]
        yield [_session(id_, self._users[name]) for name, id_ in self._sessions.items()]
        yield [
            _upload(self._uploads[one.name], self._users[one.name]) for one in UPLOADS if one.exists
        ]
        yield [_job(one, self._users[one.owner or OTHER]) for one in JOBS if one.exists]
        yield [
            DeadLetterRow(
                stream_ms=1700000000000, stream_seq=1, reason="", fields=b'{"type": "job:queued"}'
            )
        ]
        yield [
            AccountTokenRow(
                id=_invitation_id("invitation"),
                token_hash="",
                purpose=LinkPurpose.INVITATION.value,
                email="invited@shield.test",
                role=Role.VIEWER.value,
                memberships=[],
                expires_at=datetime.now(UTC) + timedelta(days=1),
            )
        ]
        conversations = [one for one in CONVERSATIONS if one.exists]
        yield [_thread(one, self._users[one.owner or OTHER]) for one in conversations]
        yield [_run(one, self._users[one.owner or OTHER]) for one in conversations]


def _upload(id_: UUID, owner: UUID) -> UploadRow:
    now = datetime.now(UTC)
    return UploadRow(
        id=id_,
        owner_id=owner,
        workspace="default",
        header="",
        size=10,
        created_at=now,
        expires_at=now + timedelta(hours=1),
    )


def _invitation_id(name: str) -> UUID:
    return uuid5(NAMESPACE_DNS, name)


def _email(name: str) -> str:
    return f"{_slug(name)}@shield.test"


def _session(id_: UUID, user_id: UUID) -> SessionRow:
    now = datetime.now(UTC)
    return SessionRow(
        id=id_,
        user_id=user_id,
        series_hash=str(id_),
        refresh_hash=str(id_),
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(hours=8),
    )


def _job(resource: Resource, owner: UUID) -> JobRow:
    now = datetime.now(UTC)
    return JobRow(
        id=resource.name,
        owner_id=owner,
        workspace=None if resource.workspace == "default" else resource.workspace,
        status=JobStatus.QUEUED.value,
        created_at=now,
        updated_at=now,
    )


def _thread(resource: Resource, owner: UUID) -> ThreadRow:
    return ThreadRow(owner_id=owner, id=resource.name, workspace=resource.workspace, title="")


def _run(resource: Resource, owner: UUID) -> RunRow:
    return RunRow(
        owner_id=owner,
        id=resource.name,
        thread_id=resource.name,
        workspace=resource.workspace,
        status=RunStatus.FINISHED.value,
        ended_at=datetime.now(UTC),
        events=_LOG,
    )


@pytest.fixture
async def harness(environment: Environment, tmp_path: Path) -> AsyncIterator[PermissionHarness]:
    # Nothing listens there: a caller with the permission for a tool gets an error of the gateway.
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    settings = environment.settings(
        STREAMS_PER_USER=1000,
        LITELLM_URL="http://127.0.0.1:1",
        UPLOADS_DIRECTORY=str(uploads),
    )
    (tmp_path / "index.html").touch()
    async with running(settings, console_directory=tmp_path) as backend:
        harness = PermissionHarness(backend, environment)
        await harness.prepare()
        yield harness


def status_matches(status: int, expected_status: int | None) -> bool:
    return (
        status == expected_status
        if expected_status is not None
        else status not in {401, 403, 404, 405, 500}
    )


async def test_every_route_follows_the_matrix(
    harness: PermissionHarness, environment: Environment
) -> None:
    wrong = []
    denials = 0
    for rule in rules_of(create_app(settings_of())):
        for caller in harness.callers():
            for resource in samples_for(rule, caller):
                expected_status = expected(rule, caller, resource)
                status = await harness.status(rule, caller, resource)
                denials += status == 403
                if not status_matches(status, expected_status):
                    who = caller.name if caller else "nobody"
                    what = resource.name if resource else "nothing"
                    wrong.append((rule.method, rule.path, what, who, status, expected_status))
    assert wrong == []
    ((noted,),) = await environment.query(
        "SELECT count(*) FROM audit_log WHERE action = 'access.denied'"
    )
    assert noted == denials > 0


async def test_overview_equals_the_matrix(harness: PermissionHarness) -> None:
    role_names = {
        Role.VIEWER: "viewer",
        Role.CONTRIBUTOR: "contributor",
        Role.ADMIN: "workspace_admin",
    }
    for caller in harness.named_callers():
        shown = await harness.get(caller, "/api/permissions")
        assert shown["everywhere"] is (caller.user.role is Role.ADMIN)
        assert shown["workspaces"] == [
            {
                "workspace": workspace,
                "role": role.value,
                "permissions": {
                    one.value: caller.permission_scope(one, workspace).value for one in Permission
                },
            }
            for workspace, role in caller.roles.items()
        ]
        for permission, reaches in shown["matrix"].items():
            assert reaches["admin"] == "everything"
            for role, role_name in role_names.items():
                assert reaches[role_name] == MATRIX[role].get(
                    Permission(permission), PermissionScope.NONE
                )


async def test_lists_contain_only_visible_resources(harness: PermissionHarness) -> None:
    for caller in harness.named_callers():
        known = {one.name for one in JOBS if caller.knows(one)}
        jobs = await harness.get(caller, "/api/jobs", limit=200)
        assert {one["id"] for one in jobs["items"]} == known, caller.name
        counts = await harness.get(caller, "/api/jobs/counts")
        assert sum(counts.values()) == len(known), caller.name
        for workspace in WORKSPACES:
            jobs = await harness.get(caller, "/api/jobs", limit=200, workspace=workspace)
            there = {one.name for one in JOBS if one.workspace == workspace}
            assert {one["id"] for one in jobs["items"]} == known & there, (caller.name, workspace)
        threads = await harness.get(caller, "/agent/threads", limit=200)
        known = {one.name for one in CONVERSATIONS if caller.knows(one)}
        assert {one["id"] for one in threads["items"]} == known, caller.name


async def test_feeds_contain_only_visible_jobs(harness: PermissionHarness) -> None:
    for caller in harness.named_callers():
        known = {one.name for one in JOBS if caller.knows(one)}
        assert await harness.feed(caller) == known, caller.name


async def test_calls_need_the_role_in_their_workspace(
    harness: PermissionHarness,
) -> None:
    for caller in harness.named_callers():
        for use in USES:
            for workspace in WORKSPACES:
                status = await harness.call_in(caller, use, workspace)
                expected_status = expected_in(caller, use, workspace)
                assert status_matches(status, expected_status), (
                    caller.name,
                    use.path,
                    workspace,
                    status,
                    expected_status,
                )


def expected_in(caller: Caller, use: WorkspaceCall, workspace: str) -> int | None:
    if not caller.may_anywhere(use.asked):
        return 403
    if caller.user.role is not Role.ADMIN and workspace not in caller.roles:
        return 404
    return 403 if caller.permission_scope(use.needed, workspace) is PermissionScope.NONE else None


def test_matrix_matches_the_intended_permissions() -> None:
    """The matrix itself could be wrong."""
    crawl = next(use for use in USES if use.path == "/api/crawl")
    agent = next(use for use in USES if use.path == "/agent")
    for name, red, default, blue in (
        ("viewer", 403, 403, 403),
        ("contributor", 403, None, 404),
        ("viewer, contributor in red", None, 403, 404),
        ("viewer, admin of red", None, 403, 404),
        ("admin", None, None, None),
    ):
        role, memberships = CALLERS[name]
        user = User(id=uuid4(), email=_email(name), role=role)
        caller = Caller(name, user, {"default": role, **memberships})
        for use in (crawl, agent):
            found = [
                expected_in(caller, use, workspace) for workspace in ("red", "default", "blue")
            ]
            assert found == [red, default, blue]


def test_parameter_without_samples_is_reported() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"/new/\{thing_id\} may name to SAMPLES"):
        samples_of("/new/{thing_id}/parts/{part}")


async def test_former_member_loses_access_immediately(
    backend: Backend, environment: Environment
) -> None:
    admin = await backend.add_user("admin@shield.test", Role.ADMIN)
    alice = await backend.add_user("alice@shield.test", Role.CONTRIBUTOR)
    await backend.join(alice, "red", Role.VIEWER)

    def event(job: str, workspace: str) -> ShieldEvent:
        return shield_event("job:progress", job=job, user=str(alice.id), workspace=workspace)

    token = backend.token_of(alice)
    async with sse(backend.http, token=token) as stream:
        (first,) = await environment.publish(event("hers-in-red", "red"))
        await stream.until(lambda it: it.ids == [str(first)])
        removed = await backend.http.delete(
            f"/admin/workspaces/red/members/{alice.id}", headers=bearer(backend.token_of(admin))
        )
        assert removed.status_code == 204
        await stream.until_ended()
    async with sse(backend.http, after="0-0", token=token) as again:
        await environment.publish(event("hers-in-red", "red"))
        (last,) = await environment.publish(event("hers", "default"))
        await again.until(lambda it: it.ids == [str(last)])
        assert set(check_feed(again.events)) == {"hers"}
    run = await backend.http.get("/api/jobs/hers-in-red/events", headers=bearer(token))
    assert run.status_code == 404


async def test_former_workspace_administrator_keeps_only_own_jobs(
    backend: Backend, environment: Environment
) -> None:
    admin = await backend.add_user("admin@shield.test", Role.ADMIN)
    alice = await backend.add_user("alice@shield.test")
    await backend.join(alice, "red", Role.ADMIN)

    def event(job: str, owner: str) -> ShieldEvent:
        return shield_event("job:progress", job=job, user=owner, workspace="red")

    token = backend.token_of(alice)
    async with sse(backend.http, token=token) as stream:
        (first,) = await environment.publish(event("another's", str(admin.id)))
        await stream.until(lambda it: it.ids == [str(first)])
        changed = await backend.http.put(
            f"/admin/workspaces/red/members/{alice.id}",
            json={"role": "viewer"},
            headers=bearer(backend.token_of(admin)),
        )
        assert changed.status_code == 200
        await stream.until_ended()
    async with sse(backend.http, after="0-0", token=token) as again:
        await environment.publish(event("another's", str(admin.id)))
        (last,) = await environment.publish(event("hers", str(alice.id)))
        await again.until(lambda it: it.ids == [str(last)])
        assert set(check_feed(again.events)) == {"hers"}
