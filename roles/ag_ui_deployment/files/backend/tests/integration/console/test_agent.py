"""Talk to the agent: a tool call, a run that goes on elsewhere, a stop, and an answer with markup."""

from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from src.models.permissions import Role
from tests.support.console import Console
from tests.support.gateway import Gateway

ALL_WORDS = " ".join(f"word{number}" for number in range(12))
FIRST_WORDS = "word0 word1"
# The model stops in the middle of its answer until it is released.
HELD = "fault=hold\nwords 12"


@pytest.fixture
async def page(console: Console) -> Page:
    """The page of a new conversation."""
    await console.log_in(Role.CONTRIBUTOR)
    await console.page.get_by_role("link", name="Agent", exact=True).click()
    return console.page


async def ask(page: Page, question: str) -> None:
    message = page.get_by_label("Message", exact=True)
    await message.fill(question)
    await message.press("Enter")


async def test_tool_calls_are_shown_with_arguments_and_results(page: Page) -> None:
    await ask(page, 'call lightrag_query {"query": "Which sharks?"}')
    call = page.locator(".call")
    await expect(call).to_contain_text("lightrag_query")
    await expect(call).to_contain_text("Completed")
    await expect(call.get_by_label("Arguments of lightrag_query")).to_contain_text("Which sharks?")
    await expect(call.get_by_label("Result of lightrag_query")).to_be_visible()
    await expect(page.locator(".reply")).to_contain_text("Done:")
    await expect(page.get_by_role("heading", name="call lightrag_query")).to_be_visible()


async def test_run_goes_on_after_a_reload_and_in_a_second_tab(page: Page, gateway: Gateway) -> None:
    marker = uuid4().hex
    await ask(page, f"{marker} {HELD}")
    await expect(page.locator(".reply")).to_contain_text(FIRST_WORDS)
    await page.reload()
    await expect(page.locator(".reply")).to_contain_text(FIRST_WORDS)
    async with page.expect_popup() as popup:
        await page.evaluate("void window.open(location.href)")
    second = await popup.value
    await expect(second.locator(".reply")).to_contain_text(FIRST_WORDS)
    await expect(second.get_by_role("button", name="Stop")).to_be_visible()
    await gateway.release(marker)
    for tab in (page, second):
        await expect(tab.locator(".reply .markdown")).to_have_text(ALL_WORDS)
        await expect(tab.get_by_role("button", name="Answer again")).to_be_visible()
    # A run that begins in one tab is shown by the other.
    await ask(second, "hello")
    await expect(page.locator(".reply").nth(1)).to_contain_text("Echo: hello")


async def test_nothing_is_missing_after_an_interruption(
    page: Page, console: Console, gateway: Gateway
) -> None:
    marker = uuid4().hex
    await ask(page, f"{marker} {HELD}")
    await expect(page.locator(".reply")).to_contain_text(FIRST_WORDS)
    await console.proxy.refuse()
    await expect(page.get_by_text("Reconnecting since")).to_be_visible()
    await gateway.release(marker)
    await console.proxy.accept()
    await expect(page.locator(".reply .markdown")).to_have_text(ALL_WORDS)


async def test_answer_is_stopped_and_given_again(page: Page, gateway: Gateway) -> None:
    marker = uuid4().hex
    await ask(page, f"{marker} {HELD}")
    await expect(page.locator(".reply")).to_contain_text(FIRST_WORDS)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("This answer was stopped.")).to_be_visible()
    await gateway.release(marker)
    await page.get_by_role("button", name="Answer again").click()
    for _ in ("at once", "after a reload"):
        await expect(page.locator(".reply .markdown")).to_have_text(ALL_WORDS)
        await expect(page.get_by_text("Earlier answers")).to_be_visible()
        await page.reload()


async def test_markup_of_an_answer_stays_text(page: Page) -> None:
    await ask(page, '**bold** <img src=x onerror="window.hacked=1"> [x](javascript:alert(1))')
    reply = page.locator(".reply")
    await expect(reply.locator("strong")).to_have_text("bold")
    await expect(reply).to_contain_text('<img src=x onerror="window.hacked=1">')
    await expect(page.locator("img, .reply a")).to_have_count(0)
    assert await page.evaluate("window.hacked") is None


async def test_conversation_is_renamed_and_deleted(page: Page) -> None:
    await ask(page, "hello")
    await expect(page.locator(".reply")).to_contain_text("Echo: hello")
    await page.get_by_role("button", name="Rename").click()
    await page.get_by_label("Title").fill("Sharks")
    await page.get_by_role("button", name="Save").click()
    conversations = page.get_by_role("navigation", name="Conversations")
    await expect(conversations.get_by_role("link", name="Sharks")).to_be_visible()
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete the conversation").click()
    await expect(conversations).to_contain_text("No conversation yet.")
