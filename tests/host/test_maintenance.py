"""`ag-ui maintenance`: the file that nginx looks for, and the signal that ends streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.deployed_host import Host


def signals(host: Host) -> list[str]:
    return [call for call in host.calls("docker") if call.startswith("kill")]


def test_maintenance_is_on_until_it_is_ended(site: Host) -> None:
    done = site.run("maintenance", "on")
    assert done.returncode == 0, done.stderr
    assert "Open streams are told to reconnect." in done.stdout
    assert signals(site) == [
        f"kill --signal=USR1 ag-ui-backend-{port}" for port in sorted(site.ports)
    ]
    # Workers of nginx have no rights.
    assert site.flag.stat().st_mode & 0o777 == 0o644
    since = site.flag.read_text()
    assert site.run("maintenance", "status").stdout == f"Maintenance is on since {since.strip()}.\n"
    assert site.run("maintenance", "on").returncode == 0
    assert site.flag.read_text() == since
    assert site.run("maintenance", "off").stdout == "Maintenance is off.\n"
    assert not site.flag.exists()
    assert site.run("maintenance", "off").stdout == "Maintenance was not on.\n"
    assert site.run("maintenance", "status").stdout == "Maintenance is off.\n"


def test_instance_that_cannot_be_told_is_named(site: Host) -> None:
    name = f"ag-ui-backend-{site.ports[1]}"
    (site.state / "deaf").write_text(f"{name}\n")
    done = site.run("maintenance", "on")
    assert done.returncode == 0
    assert f"The streams of {name} could not be told" in done.stdout
    assert site.flag.exists()


def test_maintenance_without_instances(site: Host) -> None:
    for port in site.ports:
        (site.state / site.unit(port)).unlink()
    assert site.run("maintenance", "on").returncode == 0
    assert site.flag.exists()


def test_proxy_that_does_not_know_maintenance_is_refused(site: Host) -> None:
    (site.nginx / "site.conf").write_text("server {}\n")
    done = site.run("maintenance", "on")
    assert done.returncode == 4
    assert "of a release that does not know maintenance. Deploy" in done.stderr
    assert not site.flag.exists()
