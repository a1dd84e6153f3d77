"""Administer accounts, and search, verify and export the audit log."""

from pathlib import Path

import orjson
from playwright.async_api import expect

from src.models.permissions import Role
from tests.support.accounts import is_logged_in, login
from tests.support.console import Console
from tests.support.mail_server import MailServer

ALICE = "alice@shield.test"


async def test_user_is_renamed_promoted_and_deactivated(console: Console) -> None:
    backend, page = console.backend, console.page
    await backend.add_user(ALICE)
    tokens = await login(backend, ALICE)
    await console.log_in(Role.ADMIN)
    await page.get_by_role("link", name="People").click()
    await page.get_by_label("Name or address").fill("alice")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_text("1 user", exact=True)).to_be_visible()
    await page.get_by_role("link", name=ALICE).click()
    await page.get_by_label("Name", exact=True).fill("Alice A.")
    await page.get_by_role("button", name="Rename").click()
    await expect(page.get_by_text("The name is changed.")).to_be_visible()
    await page.get_by_label("Role", exact=True).select_option("contributor")
    await page.get_by_role("button", name="Change the role").click()
    await page.get_by_role("dialog").get_by_role("button", name="Change the role").click()
    await expect(page.get_by_text(f"{ALICE} is now contributor.")).to_be_visible()
    assert await is_logged_in(backend, tokens)
    await page.get_by_role("button", name="Deactivate").click()
    await page.get_by_role("button", name="Deactivate it").click()
    await expect(page.get_by_text("There are no sessions.")).to_be_visible()
    assert not await is_logged_in(backend, tokens)


async def test_invitation_is_mailed_and_withdrawn(console: Console, mails: MailServer) -> None:
    page = console.page
    await console.log_in(Role.ADMIN)
    await page.get_by_role("link", name="People").click()
    await page.get_by_role("link", name="Invitations").click()
    await page.get_by_text("Invite somebody").click()
    await page.get_by_label("Email address").fill("new@shield.test")
    await page.get_by_role("button", name="Invite", exact=True).click()
    await expect(page.get_by_text("new@shield.test is on its way by mail.")).to_be_visible()
    token = await mails.token()
    await page.get_by_role("button", name="Withdraw the invitation of new@shield.test").click()
    await page.get_by_role("button", name="Withdraw it").click()
    report = page.get_by_role("status").filter(has_text="is withdrawn.")
    # The button that had the focus is gone with its invitation.
    await expect(report).to_be_focused()
    answer = await console.backend.http.post(
        "/auth/register", json={"invitation": token, "password": "another staple for the horse"}
    )
    assert answer.status_code == 422


async def test_audit_log_is_searched_verified_and_exported(
    console: Console, tmp_path: Path
) -> None:
    page = console.page
    await console.log_in(Role.ADMIN)
    await page.get_by_role("link", name="Audit").click()
    await page.get_by_role("button", name="Verify the log").click()
    await expect(page.get_by_text("The log is intact.")).to_be_visible()
    await page.get_by_label("Action").select_option("login")
    await expect(page.get_by_text("1 entry")).to_be_visible()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Export as JSON lines").click()
    file = tmp_path / "audit.jsonl"
    await (await download.value).save_as(file)
    (entry,) = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert (entry["action"], entry["actor"]) == ("login", "admin@shield.test")
    # Another page and back: the address keeps the filters.
    await page.get_by_role("link", name="Settings").click()
    await expect(page.get_by_role("row").filter(has_text="JWT_SECRET")).to_contain_text("Set")
    await page.go_back()
    await expect(page.get_by_label("Action")).to_have_value("login")
