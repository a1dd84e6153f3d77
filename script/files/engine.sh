# shellcheck shell=bash
# Functions of script/bootstrap for the container engine.
# shellcheck disable=SC2154  # variables of lib.sh

# Prints the packages of an engine that does not answer. Another package than docker.io may have installed dockerd.
engine_packages() {
  say iptables
  command -v dockerd >/dev/null || say docker.io
}

start_engine() {
  if [[ -d /run/systemd/system ]]; then
    as_root systemctl enable --now docker
  else
    # Forks, so that no shell is left that holds the output of script/bootstrap open. Closes its lock file (descriptor 9),
    # because dockerd would keep it locked.
    as_root setsid --fork dockerd >"$logs/dockerd.log" 2>&1 </dev/null 9>&-
  fi
  within 60 engine_answers
}

# Prints the commands that a user without root rights needs.
explain_engine() {
  say "  a running container engine that $(id -un) may use"
  if [[ -S /var/run/docker.sock ]]; then
    :
  elif [[ -d /run/systemd/system ]]; then
    say "    sudo systemctl enable --now docker"
  else
    say "    sudo dockerd &"
  fi
  say "    sudo usermod -aG docker $(id -un)    and log in again"
}
