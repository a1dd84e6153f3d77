"""Types of documents by their content."""

from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from src.services.uploads.document_types import detect, suffix_of
from src.setting_types import DOCUMENT_TYPES
from tests.support.uploads import archive, docx, pdf

ODT = b"application/vnd.oasis.opendocument.text"
EPUB = b"application/epub+zip"


def type_of(content: bytes, name: str | None = None) -> str | None:
    return detect(BytesIO(content), len(content), name)


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (pdf(100), None, "pdf"),
        (b"{\\rtf1 x}", None, "rtf"),
        (docx(), None, "docx"),
        (archive("[Content_Types].xml", "xl/workbook.xml"), None, "xlsx"),
        (archive("_rels/.rels", "ppt/slides/1.xml", "[Content_Types].xml"), None, "pptx"),
        (archive(mimetype=ODT), None, "odt"),
        (archive(mimetype=EPUB), None, "epub"),
        (b"<!DOCTYPE html><p>", None, "html"),
        (b"\xef\xbb\xbf\n <!-- a\nb --> <HTML lang=en>", None, "html"),
        (b'<?xml version="1.0"?>\n<html xmlns="x">', None, "html"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', None, "xml"),
        (b"# Title\n", "README.MD", "markdown"),
        (b"a,b\n1,2\n", "table.csv", "csv"),
        (b"{}", "data.json", "json"),
        ("Grüße\r\n\f\t".encode(), "letter.txt", "text"),
        ("Grüße".encode("utf-16"), None, "text"),
        (b"", None, "text"),
    ],
)
def test_type_is_found(content: bytes, name: str | None, expected: str) -> None:
    assert type_of(content, name) == expected


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"<script>alert(1)</script>", "notes.md"),
        (b"<!doctype html>", "data.csv"),
        (pdf(100), "notes.txt"),
    ],
)
def test_name_does_not_hide_the_content(content: bytes, name: str) -> None:
    assert type_of(content, name) in {"html", "pdf"}


def many_entries() -> bytes:
    return archive("[Content_Types].xml", *(f"word/{number:0100}.xml" for number in range(9000)))


def compressed_mimetype() -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as zip_file:
        zip_file.writestr("mimetype", ODT)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"MZ\x90\x00", id="program"),
        pytest.param(b"text \x00 and more", id="zero byte"),
        pytest.param(b"x" * 300_000 + b"\x01", id="control character far behind"),
        pytest.param(b"x" * 300_000 + b"\xff", id="no UTF-8 far behind"),
        pytest.param("x".encode("utf-16")[:-1], id="half a character"),
        pytest.param(archive("a.txt"), id="archive of something"),
        pytest.param(archive("word/document.xml"), id="office without content types"),
        pytest.param(
            archive("[Content_Types].xml", "word/document.xml", "xl/workbook.xml"), id="two at once"
        ),
        pytest.param(
            archive("[Content_Types].xml", "word/a.xml", "word/vbaProject.bin"), id="macros"
        ),
        pytest.param(archive(mimetype=b"application/x-other"), id="other mimetype"),
        pytest.param(archive(mimetype=ODT * 10), id="long mimetype"),
        pytest.param(compressed_mimetype(), id="compressed mimetype"),
        pytest.param(docx()[:-10], id="cut archive"),
        pytest.param(b"PK\x03\x04" + bytes(100), id="no archive"),
        pytest.param(many_entries(), id="directory above the limit"),
    ],
)
def test_other_content_has_no_type(content: bytes) -> None:
    assert type_of(content) is None


def test_each_type_has_a_suffix_of_its_own() -> None:
    suffixes = [suffix_of(type_) for type_ in DOCUMENT_TYPES]
    assert len(set(suffixes)) == len(DOCUMENT_TYPES)
    assert ".part" not in suffixes
    assert {suffix_of("pdf"), suffix_of("markdown"), suffix_of("text")} == {".pdf", ".md", ".txt"}
