# shellcheck shell=bash
# Functions of script/bootstrap for Python and its virtual environments.
# shellcheck disable=SC2154  # variables of lib.sh

# The packages of the gateway for the machines (containers that act as servers), which mount this folder.
machine_gateway=.cache/gateway-machine

python_fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  for python in python3 python3.14 python3.13 python3.12 python3.11; do
    ! python_fits "$python" || return 0
  done
  die "Python 3.11 or later is needed." "Debian 12 and Ubuntu 24.04 have it: sudo apt-get install python3"
}

# sync_packages FOLDER REQUIREMENTS OPTION...: installs exactly these requirements. uv does not notice a package that an
# interrupted installation left without some of its files, so FOLDER is complete only while it has the file .complete.
sync_packages() {
  local folder=$1 command=("$venv/bin/uv" pip sync --require-hashes --link-mode copy "${@:2}")
  rm -f -- "$folder/.complete"
  # Without changes, this needs no network.
  "${command[@]}" --offline || "${command[@]}"
  touch -- "$folder/.complete"
}

sync_venv() {
  if [[ ! -e $venv/.complete ]] || ! python_fits "$venv/bin/python"; then
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes \
      ${AG_UI_BUILD_INDEX_URL:+--index-url "$AG_UI_BUILD_INDEX_URL"} -r requirements/uv.txt
  fi
  sync_packages "$venv" requirements/dev.txt --python "$venv/bin/python"
}

# In a separate environment, because the gateway and the backend need different versions; they only communicate over HTTP.
sync_gateway() {
  if [[ ! -e $gateway/.complete ]] || ! python_fits "$gateway/bin/python"; then
    "$venv/bin/uv" venv --clear --python "$venv/bin/python" "$gateway"
  fi
  sync_packages "$gateway" requirements/gateway.txt --python "$gateway/bin/python"
}

# Machines run Debian 12's Python, whatever version this machine has.
sync_machine_gateway() {
  [[ -e $machine_gateway/.complete ]] || rm -rf -- "$machine_gateway"
  sync_packages "$machine_gateway" requirements/gateway.txt --target "$machine_gateway" --only-binary :all: \
    --python "$venv/bin/python" --python-version 3.11 --python-platform "$(uname -m)-manylinux_2_36"
}
