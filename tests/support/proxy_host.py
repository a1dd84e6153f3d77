"""A folder in place of /etc/nginx, and a stub systemctl that runs nginx on it."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from tests.support.nginx import Nginx, make_folders, program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROXY_KEY = "a-key-of-the-proxy-for-the-backend-0123456789"
# The part of systemctl that the role uses. `broken` lists the verbs that fail, `deadly` those that
# kill their caller, as a lost connection or an out-of-memory kill does.
SYSTEMCTL = """#!/bin/sh
cd {folder} || exit
for word; do case $word in -*) ;; *) verb=$word; break;; esac; done
! grep -qsx "$verb" broken || {{ echo "$verb is broken" >&2; exit 1; }}
! grep -qsx "$verb" deadly || {{ kill -KILL $PPID; exit; }}
case $verb in
  is-active) kill -0 "$(cat nginx.pid)" 2>/dev/null ;;
  is-enabled) echo enabled ;;
  start) nginx -c {folder}/nginx.conf ;;
  reload | try-reload-or-restart) nginx -t -q -c {folder}/nginx.conf && kill -HUP "$(cat nginx.pid)" ;;
  show)
    case $* in
      *MainPID*) cat nginx.pid ;;
      *) printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nId=nginx.service\\n' ;;
    esac ;;
esac
"""


class ProxyHost:
    """The part of a host that the proxy's tasks change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nginx = Nginx(folder)
        self.site = folder / "conf.d/ag-ui.conf"
        self.stamp = folder / "proxy.loaded"
        make_folders(folder)
        for name in ("tls", "logs", "bin"):
            (folder / name).mkdir()
        self._add_program("systemctl", SYSTEMCTL.format(folder=folder))
        command = shlex.join([program(), "-p", str(folder), "-e", f"{folder}/error.log"])
        self._add_program("nginx", f'#!/bin/sh\nexec {command} "$@"\n')

    def _add_program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables for Ansible, with the stubs first in PATH."""
        return {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def fail_verbs(self, *verbs: str) -> None:
        """Make these verbs of systemctl fail, and no others."""
        (self.folder / "broken").write_text("".join(f"{verb}\n" for verb in verbs))
        (self.folder / "deadly").unlink(missing_ok=True)

    def kill_caller_at(self, verb: str) -> None:
        """Make this verb of systemctl kill its caller."""
        (self.folder / "deadly").write_text(f"{verb}\n")

    def files(self) -> dict[str, bytes]:
        """Return the content of all files that nginx reads."""
        folders = ("conf.d", "modules-enabled", "sites-enabled", "tls")
        paths = [path for name in folders for path in (self.folder / name).iterdir()]
        paths.append(self.folder / "nginx.conf")
        return {str(path): path.read_bytes() for path in paths if path.is_file()}
