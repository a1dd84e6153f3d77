# shellcheck shell=bash
# Functions of script/bootstrap for Debian packages and root rights.

as_root() {
  if ((EUID == 0)); then
    "$@"
  else
    sudo -n "$@"
  fi
}

has_rights() { ((EUID == 0)) || sudo -n true 2>/dev/null; }

is_debian() { [[ $(. /etc/os-release && say "$ID") == debian ]]; }

# Prints the package of Chromium.
browser_package() { if is_debian; then say chromium; else say chromium-browser; fi; }

is_installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Prevents the services of the packages from starting, now and at boot: only their programs are needed, such as nginx for
# the tests.
install_packages() {
  local policy=/usr/sbin/policy-rc.d package
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy"
    as_root chmod 755 "$policy"
    # shellcheck disable=SC2064  # expand the path now
    trap "as_root rm -f -- '$policy'" EXIT
  fi
  # Completes an interrupted installation, because apt-get would refuse to work.
  as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a
  as_root apt-get update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
  for package in "$@"; do
    ! systemctl cat "$package.service" >/dev/null 2>&1 || as_root systemctl disable "$package.service"
  done
}

# Prints the commands that a user without root rights needs.
explain_packages() {
  say "  packages: $*"
  say "    sudo apt-get update && sudo apt-get install --no-install-recommends $*"
}
