"""A certificate that clients would refuse is refused on the controller, with the remedy."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from tests.support.ansible_module import PLUGINS, import_util, run_module
from tests.support.certificates import SignedCertificate, sign
from tests.support.site_playbook import REQUIRED_VARIABLES, play

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import PrivateKey

NAME = "ag-ui.example"
ROOT = sign("Root")
INTERMEDIATE = sign("Intermediate", ROOT)
LEAF = sign("leaf", INTERMEDIATE, hosts=[NAME, "*.apps.example", "192.0.2.1"])
CHAIN = LEAF.pem + INTERMEDIATE.pem
WEAK_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
NO_AUTHORITY = "does not lead to an authority of ag_ui_tls_ca"


import_util("ag_ui_certificates")  # so that the module finds the collection
problems_of = runpy.run_path(str(PLUGINS / "modules/ag_ui_certificate.py"))["problems_of"]


def problems(
    certificate: str = CHAIN,
    key: str = LEAF.key_pem,
    ca: str = ROOT.pem,
    names: tuple[str, ...] = (NAME,),
) -> list[str]:
    """Return the module's findings; runs in this process, since starting Ansible takes a second."""
    found: list[str] = problems_of(certificate, key, ca, list(names))
    return found


def chain_of(leaf: SignedCertificate) -> tuple[str, str]:
    return leaf.pem + INTERMEDIATE.pem, leaf.key_pem


def test_valid_certificate_is_accepted() -> None:
    assert problems(names=(NAME, "one.apps.example", "192.0.2.1")) == []
    # The file may include the root.
    assert problems(CHAIN + ROOT.pem) == []


def test_key_of_another_certificate_is_reported() -> None:
    [found] = problems(key=sign("other", hosts=[NAME]).key_pem)
    assert "ag_ui_tls_key is not the key of ag_ui_tls_certificate" in found


def test_wrong_order_of_the_chain_is_reported() -> None:
    found = problems(INTERMEDIATE.pem + LEAF.pem)
    assert "Put the server's certificate first" in found[0]


def test_encrypted_or_missing_key_is_reported() -> None:
    for key in (LEAF.encoded_key(BestAvailableEncryption(b"secret")), "no key", ROOT.pem):
        [found] = problems(key=key)
        assert "is no private key in PEM without a passphrase" in found


def test_missing_intermediate_is_reported() -> None:
    [found] = problems(LEAF.pem)
    assert NO_AUTHORITY in found
    assert "Put the intermediate certificates behind the server's" in found


def test_intermediate_in_the_ca_file_does_not_complete_the_chain() -> None:
    """Clients trust the root; the server does not send them other certificates of the CA file."""
    [found] = problems(LEAF.pem, ca=INTERMEDIATE.pem + ROOT.pem)
    assert NO_AUTHORITY in found
    [found] = problems(LEAF.pem, ca=INTERMEDIATE.pem)
    assert "ag_ui_tls_ca holds no authority" in found


def test_other_authority_is_reported() -> None:
    [found] = problems(ca=sign("Other").pem)
    assert NO_AUTHORITY in found
    assert "set ag_ui_tls_ca" in found


def test_private_authority_is_unknown_to_the_system() -> None:
    [found] = problems(ca="")
    assert "does not lead to an authority of the controller's system" in found


def test_self_signed_certificate_is_reported() -> None:
    alone = sign("alone", hosts=[NAME])
    [found] = problems(alone.pem, alone.key_pem)
    assert NO_AUTHORITY in found


@pytest.mark.parametrize(
    ("begins", "ends", "words"), [(-9, -2, "has expired"), (2, 9, "is not yet valid")]
)
def test_certificate_outside_its_validity_is_reported(begins: int, ends: int, words: str) -> None:
    leaf = sign("leaf", INTERMEDIATE, hosts=[NAME], begins=begins, ends=ends)
    [found] = problems(*chain_of(leaf))
    assert words in found
    assert "notAfter=" in found


def test_expired_intermediate_is_reported() -> None:
    old = sign("Old", ROOT, begins=-9, ends=-2)
    leaf = sign("leaf", old, hosts=[NAME])
    [found] = problems(leaf.pem + old.pem, leaf.key_pem)
    assert "has expired" in found


def test_missing_names_are_reported() -> None:
    [found] = problems(names=(NAME, "a.b.apps.example", "192.0.2.2"))
    assert (
        "is not for a.b.apps.example, 192.0.2.2 (it is for ag-ui.example, *.apps.example" in found
    )


def test_common_name_is_ignored() -> None:
    leaf = sign(NAME, INTERMEDIATE)
    [found] = problems(*chain_of(leaf))
    assert "is not for ag-ui.example (it is for no name)" in found


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            WEAK_KEY,
            "is too weak for clients: EE certificate key too weak",
        ),
        (
            ec.generate_private_key(ec.SECP521R1()),
            "browsers do not support (id-ecPublicKey on secp521r1)",
        ),
        (ed25519.Ed25519PrivateKey.generate(), "browsers do not support (ED25519)"),
    ],
    ids=["1024 bits", "P-521", "Ed25519"],
)
def test_key_that_clients_refuse_is_reported(key: PrivateKey, words: str) -> None:
    [found] = problems(*chain_of(sign("leaf", INTERMEDIATE, hosts=[NAME], key=key)))
    assert words in found


def test_weak_key_of_an_authority_is_reported() -> None:
    weak = sign("Weak", ROOT, key=WEAK_KEY)
    leaf = sign("leaf", weak, hosts=[NAME])
    [found] = problems(leaf.pem + weak.pem, leaf.key_pem)
    assert "CA certificate key too weak" in found


def test_usual_keys_are_accepted() -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        assert problems(*chain_of(sign("leaf", INTERMEDIATE, hosts=[NAME], key=key))) == []


def test_certificate_that_requires_stapling_is_reported() -> None:
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    [found] = problems(*chain_of(sign("leaf", INTERMEDIATE, hosts=[NAME], extension=feature)))
    assert "requires OCSP stapling" in found


def test_invalid_pem_is_reported() -> None:
    for text in ("", LEAF.key_pem, CHAIN.replace("MII", "MIX", 1)):
        [found] = problems(text)
        assert "holds no certificates in PEM" in found


def test_deployment_with_an_invalid_certificate_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "server.crt").write_text(LEAF.pem)
    (tmp_path / "server.key").write_text(ROOT.key_pem)
    done = play(
        tmp_path,
        REQUIRED_VARIABLES
        | {"ag_ui_server_name": NAME, "ag_ui_tls_mode": "provided"}
        | {
            f"ag_ui_tls_{n}": f"{tmp_path}/server.{s}"
            for n, s in (("certificate", "crt"), ("key", "key"))
        },
    )
    assert done.code != 0
    assert "Nothing was changed. Correct the certificate of hx-dev-server first" in done.message
    assert "is not the key of ag_ui_tls_certificate" in done.message
    assert "does not lead to an authority of the controller's system" in done.message
    assert sum(done.changes.values()) == 0
    assert not [task for task in done.tasks if "Preflight" in task]
    assert ROOT.key_pem.splitlines()[1] not in done.output


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (sign("leaf", ROOT, hosts=[NAME], begins=-9, ends=-1), ["certificate has expired"]),
        (
            sign("leaf", ROOT, hosts=[NAME]),
            ["is not for www.ag-ui.example (it is for ag-ui.example)"],
        ),
    ],
    ids=["expired", "without the alias"],
)
def test_expired_or_unfitting_certificate_stops_the_play(
    tmp_path: Path, leaf: SignedCertificate, words: list[str]
) -> None:
    files = {"certificate": leaf.pem, "key": leaf.key_pem, "ca": ROOT.pem}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    names = {"ag_ui_server_name": NAME, "ag_ui_server_aliases": ["www.ag-ui.example"]}
    mode = {"ag_ui_tls_mode": "provided"}
    paths = {f"ag_ui_tls_{name}": f"{tmp_path}/{name}" for name in files}
    done = play(tmp_path, REQUIRED_VARIABLES | names | mode | paths)
    assert done.code != 0
    for word in ["Nothing was changed. Correct the certificate of hx-dev-server first", *words]:
        assert word in done.message, done.output
    assert sum(done.changes.values()) == 0
    assert not [task for task in done.tasks if "Preflight" in task]


@pytest.mark.parametrize(("ends", "warns"), [(15, False), (13, True)])
def test_certificate_that_expires_soon_is_a_warning(
    tmp_path: Path, ends: int, *, warns: bool
) -> None:
    leaf = sign("leaf", ROOT, hosts=[NAME], ends=ends)
    given = {"certificate": leaf.pem, "key": leaf.key_pem, "ca": ROOT.pem, "names": [NAME]}
    done = run_module("ag_ui_certificate", given, tmp_path, {})
    assert done["problems"] == []
    assert ("ag_ui_tls_certificate expires on" in str(done.get("warnings"))) is warns
