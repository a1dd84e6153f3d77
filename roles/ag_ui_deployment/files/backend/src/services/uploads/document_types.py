"""Finds the type of a document by its content.

Only formats of plain text are told apart by the file name. They have no signature, and the name
decides nothing but how the document is presented to the tool.
"""

import codecs
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import IO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

_HEAD_BYTES = 1024
_CHUNK_BYTES = 256 * 1024
# Maximum size of the directory of a ZIP archive, which is read into memory.
_ZIP_READ_BYTES = 1024 * 1024
_MIMETYPE_BYTES = 100
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_HTML = re.compile(
    r"(\s|<!--.*?-->|<\?xml[^>]*>)*<(!doctype\s+html|html|head|body|script|iframe|title|style)\b",
    re.IGNORECASE | re.DOTALL,
)
_XML = re.compile(r"\s*<\?xml\b")
_SIGNATURES: Mapping[bytes, str] = {b"%PDF-": "pdf", b"{\\rtf": "rtf"}
# The folder of an Office Open XML document that has its contents.
_OFFICE_FOLDERS: Mapping[str, str] = {"word/": "docx", "xl/": "xlsx", "ppt/": "pptx"}
_MIMETYPES: Mapping[bytes, str] = {
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/vnd.oasis.opendocument.presentation": "odp",
    b"application/epub+zip": "epub",
}
_TEXT_SUFFIXES: Mapping[str, str] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".csv": "csv",
    ".json": "json",
}
# How the file of a type ends, where it is not the name of the type. Tools choose their reader by it.
_SUFFIXES: Mapping[str, str] = {"markdown": ".md", "text": ".txt"}


def suffix_of(type_: str) -> str:
    """The end of the file name for documents of a type."""
    return _SUFFIXES.get(type_, f".{type_}")


def detect(file: IO[bytes], size: int, name: str | None) -> str | None:
    """Find the type of a document.

    Args:
        file: The document. It is read from the beginning, with bounded memory.
        size: Its size in bytes.
        name: The file name, which tells formats of plain text apart.

    Returns:
        One of setting_types.DOCUMENT_TYPES; None if it is none of them.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    for signature, type_ in _SIGNATURES.items():
        if head.startswith(signature):
            return type_
    if head.startswith(b"PK\x03\x04"):
        return _archive_type(_BoundedReader(file, size))
    file.seek(0)
    return _text_type(file, head, name)


class _BoundedReader:
    """Lets ZipFile read a bounded number of bytes in all."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._left = _ZIP_READ_BYTES
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = self._size - self._file.tell()
        self._left -= size
        if self._left < 0:
            raise BadZipFile("the directory is too large")
        return self._file.read(size)


def _archive_type(reader: _BoundedReader) -> str | None:
    try:
        with ZipFile(reader) as archive:
            return _mimetype(archive) or _office_type(archive.namelist())
    except (BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError):
        return None


def _mimetype(archive: ZipFile) -> str | None:
    """The type of an OpenDocument or EPUB file, which name it in a stored entry."""
    info = archive.NameToInfo.get("mimetype")
    if info is None or info.compress_type != ZIP_STORED or info.file_size > _MIMETYPE_BYTES:
        return None
    return _MIMETYPES.get(archive.read(info).strip())


def _office_type(names: list[str]) -> str | None:
    """The type of an Office Open XML file. One with macros is none."""
    if "[Content_Types].xml" not in names or any(name.endswith("vbaProject.bin") for name in names):
        return None
    found = {
        type_
        for folder, type_ in _OFFICE_FOLDERS.items()
        if any(name.startswith(folder) for name in names)
    }
    return found.pop() if len(found) == 1 else None


def _text_type(file: IO[bytes], head: bytes, name: str | None) -> str | None:
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    if not _is_text(file, encoding):
        return None
    beginning = head.decode(encoding, errors="ignore").lstrip("\ufeff")
    if _HTML.match(beginning):
        return "html"
    if _XML.match(beginning):
        return "xml"
    return _TEXT_SUFFIXES.get(PurePath(name or "").suffix.lower(), "text")


def _is_text(file: IO[bytes], encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while chunk := file.read(_CHUNK_BYTES):
            if _CONTROL.search(decoder.decode(chunk)):
                return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
