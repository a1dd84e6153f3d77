"""Upload a document and ingest it."""

from pathlib import Path

from playwright.async_api import FilePayload, Page, expect

from src.models.permissions import Role
from tests.support.console import Console
from tests.support.gateway import Gateway
from tests.support.uploads import files_in, pdf


async def choose(page: Page, name: str, content: bytes) -> None:
    document: FilePayload = {"name": name, "mimeType": "", "buffer": content}
    await page.get_by_label("Document", exact=True).set_input_files(document)


async def test_document_is_uploaded_and_ingested(
    console: Console, gateway: Gateway, tmp_path: Path
) -> None:
    page = console.page
    await console.log_in(Role.CONTRIBUTOR)
    await console.open("start?tool=ingest_doc")
    await choose(page, "sharks.pdf", pdf(300_000))
    await expect(page.get_by_text("Uploaded", exact=True)).to_be_visible()
    (document,) = files_in(tmp_path)
    await page.locator("form").get_by_role("button", name="Start").click()
    await expect(page.get_by_text("Queued")).to_be_visible()
    calls = await gateway.tool_calls(document.stem)
    assert [call["arguments"]["source_name"] for call in calls] == ["sharks.pdf"]


async def test_document_of_another_type_is_refused(console: Console) -> None:
    page = console.page
    await console.log_in(Role.CONTRIBUTOR)
    await console.open("start?tool=ingest_doc")
    await choose(page, "sharks.pdf", b"\x7fELF" + bytes(1000))
    await expect(page.get_by_text("Documents of this type are not accepted")).to_be_visible()
    await page.get_by_role("button", name="Cancel the upload").click()
    await expect(page.get_by_label("Document", exact=True)).to_be_visible()
