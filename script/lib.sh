# shellcheck shell=bash
# Variables and functions of the scripts in this folder. Sourced, not executed.

set -euo pipefail
top=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd -- "$top"

# shellcheck disable=SC2034  # read by the scripts that source this file
machine_image=ag-ui-systemd
python_image=ag-ui-python:base
python_archive=.cache/images/ag-ui-python.tar
venv=$top/.venv
# shellcheck disable=SC2034  # read by the scripts that source this file
gateway=$top/.cache/gateway
logs=.cache/logs

# Behind a TLS-intercepting proxy, servers have certificates of the site's own authority. The CA bundle of the system
# contains it; the bundles in Python packages do not.
ca_bundle=/etc/ssl/certs/ca-certificates.crt
for variable in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS; do
  [[ -n ${!variable:-} ]] || export "$variable=$ca_bundle"
done

# Prints the package index in pip's configuration, if any, which uv and image builds do not read.
site_index() {
  if [[ -n ${PIP_INDEX_URL:-} ]]; then
    printf '%s\n' "$PIP_INDEX_URL"
  else
    sed -n 's/^ *index-url *= *//p' /etc/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf" 2>/dev/null |
      tail -n 1 || true
  fi
}

# Inputs for the build of the backend's image; inventories/demo reads these variables.
export AG_UI_BASE_IMAGE=$python_image AG_UI_BASE_IMAGE_ARCHIVE=$top/$python_archive
export AG_UI_BUILD_CA_BUNDLE=$ca_bundle AG_UI_BUILD_INDEX_URL
AG_UI_BUILD_INDEX_URL=${AG_UI_BUILD_INDEX_URL:-$(site_index)}
[[ -z $AG_UI_BUILD_INDEX_URL ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$AG_UI_BUILD_INDEX_URL}

export PATH="$venv/bin:$PATH" PYTHONPYCACHEPREFIX="$top/.cache/bytecode" ANSIBLE_CONFIG="$top/ansible.cfg"
unset PYTHONPATH VIRTUAL_ENV

say() { printf '%s\n' "$*"; }

die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

# Prints the header comment of the script, which is its usage.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

wrong_usage() {
  {
    printf '%s: %s\n\n' "${0##*/}" "$1"
    usage
  } >&2
  exit 2
}

# Microseconds since the epoch.
now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# seconds_since MICROSECONDS: the time passed, in seconds with one decimal.
seconds_since() {
  local tenths=$((($(now) - $1) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# attempt COMMAND...: runs it in a subshell with set -e, and sets $code to its exit code. After || or in a condition, the
# shell would ignore set -e inside the command.
attempt() {
  set +e
  (
    set -e
    "$@"
  )
  code=$?
  set -e
}

# run_step NAME COMMAND...: runs it with its output in a log, and prints the time. If it fails, prints the end of the log
# and exits.
run_step() {
  local name=$1 log started code
  shift
  log=$logs/${name//[^a-zA-Z0-9]/-}.log
  mkdir -p "$logs"
  printf '  %-52s' "$name"
  started=$(now)
  attempt "$@" >"$log" 2>&1 </dev/null
  if ((code)); then
    printf ' FAILED after %s s\n' "$(seconds_since "$started")"
    tail -n 60 -- "$log" >&2
    die "'$name' failed with $code; its whole output is in $log"
  fi
  printf ' %6s s\n' "$(seconds_since "$started")"
}

skip_step() { printf '  %-52s  there\n' "$1"; }

# ensure NAME CHECK COMMAND...: runs the step unless the check succeeds.
ensure() {
  local name=$1 check=$2
  shift 2
  if "$check" >/dev/null 2>&1; then
    skip_step "$name"
  else
    run_step "$name" "$@"
  fi
}

# within SECONDS COMMAND...: repeats the command until it succeeds; fails after the given time.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

# record_figure FOLDER NAME VALUE: writes a measured value to a file, so that any script can print it with its limit.
record_figure() {
  mkdir -p "$1"
  printf '%s\n' "$3" >"$1/$2.new"
  mv -- "$1/$2.new" "$1/$2"
}

# print_figure FOLDER NAME LIMIT TEXT: prints the value with its limit (seconds); fails if it is missing or above the limit.
print_figure() {
  local value verdict=ok
  if ! value=$(cat -- "$1/$2" 2>/dev/null); then
    printf '  %-46s %10s   limit %s s\n' "$4" 'none' "$3"
    return 1
  fi
  awk -v value="$value" -v limit="$3" 'BEGIN { exit !(value <= limit) }' || verdict='TOO SLOW'
  printf '  %-46s %8s s   limit %s s   %s\n' "$4" "$value" "$3" "$verdict"
  [[ $verdict == ok ]]
}

# print_measured FOLDER NAME TEXT: prints the value, without a limit.
print_measured() { printf '  %-46s %8s s\n' "$3" "$(cat -- "$1/$2" 2>/dev/null || say none)"; }

# Puts a string in single quotes, for any POSIX shell.
quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

engine_answers() { timeout 20 docker info >/dev/null 2>&1; }
