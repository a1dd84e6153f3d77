"""Log in with a second factor, and make an account from an invitation."""

import time

import pyotp
from playwright.async_api import expect

from src.models.permissions import Role
from tests.support.accounts import bearer
from tests.support.console import Console
from tests.support.mail_server import MailServer
from tests.support.server import PASSWORD

NEW_PASSWORD = "another staple for the horse"


async def test_second_factor_is_set_up_and_asked_for(console: Console) -> None:
    page = console.page
    user = await console.log_in(Role.CONTRIBUTOR)
    await page.get_by_role("link", name="Mine").click()
    await page.get_by_role("button", name="Set up a second factor").click()
    await page.get_by_label("Your password").fill(PASSWORD)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.get_by_label("QR code of the secret for an authenticator")).to_be_visible()
    secret = (await page.locator(".factor-secret code").inner_text()).replace(" ", "")
    totp = pyotp.TOTP(secret)
    await page.get_by_label("Code", exact=True).fill(totp.now())
    await page.get_by_role("button", name="Turn it on").click()
    await expect(page.get_by_text("Your recovery codes are shown only now.")).to_be_visible()
    await page.get_by_role("banner").get_by_role("button", name="Log out").click()
    await console.fill_in_login(user.email)
    code = page.get_by_label("Code of your authenticator")
    await code.fill("000000")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("This code is wrong or was used before.")).to_be_visible()
    # Each code is accepted once; the next one is accepted early.
    await code.fill(totp.at(int(time.time()) + 30))
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Mine")).to_be_visible()


async def test_invitation_makes_an_account(console: Console, mails: MailServer) -> None:
    backend, page = console.backend, console.page
    admin = await backend.add_user("admin@shield.test", Role.ADMIN)
    answer = await backend.http.post(
        "/admin/users/invite",
        json={"email": "new@shield.test", "role": "contributor"},
        headers=bearer(backend.token_of(admin)),
    )
    assert answer.is_success, answer.text
    await console.open(f"register#token={await mails.token()}")
    await page.get_by_label("New password", exact=True).fill(NEW_PASSWORD)
    await page.get_by_label("New password, again").fill(NEW_PASSWORD)
    await page.get_by_role("button", name="Make the account").click()
    await page.get_by_role("link", name="Log in").click()
    await console.fill_in_login("new@shield.test", NEW_PASSWORD)
    await expect(page.get_by_role("heading", name="Live")).to_be_visible()
