"""The settings in the admin API."""

from src.models.permissions import Role
from tests.support.accounts import bearer
from tests.support.builders import JWT_SECRET
from tests.support.environment import Environment
from tests.support.server import running


async def test_settings_are_shown_without_secrets(environment: Environment) -> None:
    values = {"LITELLM_URL": "http://key:hunter2@gateway:4000", "AUDIT_KEY": "hunter2" * 5}
    async with running(environment.settings(**values)) as backend:
        admin = await backend.add_user("admin@shield.test", Role.ADMIN)
        answer = await backend.http.get("/admin/config", headers=bearer(backend.token_of(admin)))
        shown = {one.pop("name"): one for one in answer.json()["items"]}
        given = {"secret": False, "is_set": True}
        assert shown["PORT"] == given | {"value": 8002, "source": "default"}
        assert shown["REDIS_STREAM_NAME"] == given | {
            "value": environment.stream,
            "source": "environment",
        }
        hidden = {"value": None, "secret": True}
        assert shown["AUDIT_KEY"] == hidden | {"is_set": True, "source": "environment"}
        assert shown["SMTP_URL"] == hidden | {"is_set": False, "source": "default"}
        for secret in ("hunter2", JWT_SECRET, environment.database_url):
            assert secret not in answer.text
