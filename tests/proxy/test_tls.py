"""TLS as a scanner such as testssl.sh judges it: what nginx accepts and refuses, and what it sends."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.certificates import sign
from tests.support.nginx import Nginx, free_port, make_folders, render_site
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "ag-ui.example"
# All have forward secrecy and authenticated encryption.
CIPHERS = {
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
}
# Groups with at least 128 bits. The elliptic curves below P-256 have fewer.
STRONG_GROUPS = ("X25519", "P-256", "P-384", "P-521", "X448")
WEAK_GROUPS = ("P-224", "P-192", "secp160r1", "sect163k1", "sect233r1")
HSTS = "max-age=31536000"


class Instance(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Suppress the log."""


class Site(NamedTuple):
    """The proxy, its ports, and the authority of its certificate."""

    nginx: Nginx
    https: int
    http: int
    authority: Path

    def client(self, *options: str, text: str = "") -> str:
        """Run `openssl s_client`, also with old protocols and weak keys; return its output and errors."""
        done = subprocess.run(
            [
                *(
                    "openssl",
                    "s_client",
                    "-connect",
                    f"127.0.0.1:{self.https}",
                    "-servername",
                    NAME,
                ),
                *("-CAfile", str(self.authority), "-cipher", "ALL:@SECLEVEL=0", *options),
            ],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=30,
        )
        return done.stdout

    def context(self) -> ssl.SSLContext:
        """Make the context of a client that accepts anything."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        return context

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Make a connection.

        Raises:
            OSError: The handshake fails.
        """
        connection = socket.create_connection(("127.0.0.1", self.https), 10)
        try:
            return context.wrap_socket(connection, server_hostname=NAME)
        except OSError:
            connection.close()
            raise


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    make_folders(folder)
    authority = sign("Authority")
    middle = sign("Intermediate", authority)
    # Older clients support RSA only, so this tests more ciphers than an elliptic curve key.
    leaf = sign("leaf", middle, hosts=[NAME], key=rsa.generate_private_key(65537, 2048))
    (folder / "tls").mkdir()
    (folder / "tls/server.crt").write_text(leaf.pem + middle.pem)
    (folder / "tls/server.key").write_text(leaf.key_pem)
    (folder / "authority.pem").write_text(authority.pem)
    https, http = free_port(), free_port()
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Instance)) as backend:
        variables = {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": http,
            "ag_ui_backend_ports": [backend],
        }
        render_site(folder, variables)
        with Nginx(folder) as nginx:
            yield Site(nginx, https, http, folder / "authority.pem")


def is_accepted(output: str) -> bool:
    """Whether a handshake of s_client was successful."""
    return (
        re.search(r"^New, TLSv1\.[0-9](?:\.[0-9])?, Cipher is (?!\(NONE\))", output, re.MULTILINE)
        is not None
    )


@pytest.mark.parametrize(
    ("option", "accepted"),
    [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)],
)
def test_protocols(site: Site, option: str, *, accepted: bool) -> None:
    output = site.client(option)
    assert is_accepted(output) is accepted, output
    # s_client would otherwise not have sent anything.
    assert accepted or "alert protocol version" in output


def test_chain_leads_to_the_authority(site: Site) -> None:
    output = site.client("-verify_hostname", NAME, "-verify_return_error")
    assert "Verify return code: 0 (ok)" in output


def test_only_strong_ciphers_are_accepted_with_tls_1_2(site: Site) -> None:
    every = {str(cipher["name"]) for cipher in site.context().get_ciphers()}
    old = {name for name in every if not name.startswith("TLS_")}
    # Without encryption, without a certificate, with the key of the certificate, in CBC mode, without ECDHE.
    weak = {
        "NULL-SHA256",
        "ADH-AES128-SHA",
        "AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
    }
    assert weak | CIPHERS <= old
    accepted = set()
    for name in old:
        context = site.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{name}:@SECLEVEL=0")
        try:
            site.connect(context).close()
        except OSError:
            continue
        accepted.add(name)
    assert accepted == CIPHERS


def test_ciphers_of_tls_1_3(site: Site) -> None:
    suites = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    assert [
        one
        for one in suites
        if not is_accepted(site.client("-ciphersuites", f"TLS_{one}", "-tls1_3"))
    ] == []
    for one in ("AES_128_CCM_SHA256", "AES_128_CCM_8_SHA256"):
        assert not is_accepted(site.client("-ciphersuites", f"TLS_{one}", "-tls1_3"))


@pytest.mark.parametrize("group", STRONG_GROUPS)
@pytest.mark.parametrize("protocol", ["-tls1_2", "-tls1_3"])
def test_strong_groups_are_accepted(site: Site, protocol: str, group: str) -> None:
    output = site.client(protocol, "-groups", group)
    assert is_accepted(output), output


@pytest.mark.parametrize("group", WEAK_GROUPS)
def test_weak_groups_are_refused(site: Site, group: str) -> None:
    output = site.client("-tls1_2", "-groups", group)
    assert not is_accepted(output)
    assert "alert handshake failure" in output, output


def test_ephemeral_key_has_128_bits_by_default(site: Site) -> None:
    assert "Server Temp Key: X25519, 253 bits" in site.client()


def test_every_answer_over_https_has_hsts(site: Site) -> None:
    for path, status in (("/", 200), ("/metrics", 404)):
        answer = site.nginx.send(site.https, f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert (answer.status, answer.headers["strict-transport-security"]) == (status, HSTS)


def test_http_is_redirected_without_hsts(site: Site) -> None:
    raw = f"GET /a?b=c HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()
    answer = site.nginx.send(site.http, raw, tls=False)
    assert answer.status == 308
    assert answer.headers["location"] == f"https://{NAME}:{site.https}/a?b=c"
    # Browsers ignore it over HTTP (RFC 6797).
    assert "strict-transport-security" not in answer.headers


def test_http_on_the_port_of_https_is_refused(site: Site) -> None:
    answer = site.nginx.send(site.https, b"GET / HTTP/1.0\r\n\r\n", tls=False)
    assert answer.status == 400


def test_no_compression(site: Site) -> None:
    for protocol in ("-tls1_2", "-tls1_3"):
        assert "Compression: NONE" in site.client(protocol, "-comp")


def test_client_cannot_renegotiate(site: Site) -> None:
    # s_client begins a new handshake when it reads this line.
    output = site.client("-tls1_2", text="R\n")
    assert "Secure Renegotiation IS supported" in output
    assert "RENEGOTIATING" in output
    assert "no renegotiation" in output or "unexpected eof" in output or "closed" in output, output


def test_sessions_are_resumed_without_tickets(site: Site) -> None:
    output = site.client("-tls1_2")
    assert "TLS session ticket" not in output
    context = site.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with site.connect(context) as first:
        session = first.session
        assert session is not None
        assert not session.has_ticket
    with (
        socket.create_connection(("127.0.0.1", site.https), 10) as connection,
        context.wrap_socket(connection, server_hostname=NAME, session=session) as second,
    ):
        assert second.session_reused


def test_no_early_data(site: Site) -> None:
    # A request in early data could be replayed.
    output = site.client("-tls1_3", text="GET / HTTP/1.0\n\n")
    assert set(re.findall(r"Max Early Data: (\d+)", output)) <= {"0"}
    assert "Early data was not sent" in output


def test_no_response_of_ocsp_is_stapled(site: Site) -> None:
    assert "OCSP response: no response sent" in site.client("-status")


def test_downgrade_is_refused(site: Site) -> None:
    assert "alert inappropriate fallback" in site.client("-tls1_2", "-fallback_scsv")


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_http_versions(site: Site, protocol: str) -> None:
    assert f"ALPN protocol: {protocol}" in site.client("-alpn", protocol)
