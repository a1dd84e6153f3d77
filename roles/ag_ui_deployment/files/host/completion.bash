# shellcheck shell=bash
# Completion of the command ag-ui for bash.

_ag_ui() {
  local word=${COMP_WORDS[COMP_CWORD]} words='' path
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    words='status logs releases rollback drain start undrain maintenance exec --help'
  else
    case ${COMP_WORDS[1]} in
      status | releases) words='--json' ;;
      rollback)
        for path in "${AG_UI_RELEASES:-/etc/ag-ui/releases}"/*/deployed; do
          [[ ! -e $path ]] || words+=" $(basename -- "${path%/deployed}")"
        done
        ;;
      logs | drain | start | undrain)
        [[ ${COMP_WORDS[1]} != logs ]] || words='--follow --since --lines'
        [[ ${COMP_WORDS[1]} != drain ]] || words='--force'
        for path in "${AG_UI_UNITS:-/etc/systemd/system}"/ag-ui-backend@?*.service; do
          [[ ! -e $path ]] || words+=" $(basename -- "$path" .service | sed 's/.*@//')"
        done
        ;;
      maintenance) words='on off status' ;;
      *) ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _ag_ui ag-ui
