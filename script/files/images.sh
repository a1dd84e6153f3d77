# shellcheck shell=bash
# Functions of script/bootstrap for the container images. They are built from Debian packages, without a registry.
# shellcheck disable=SC2154  # variables of lib.sh

images=.cache/images
python_release=trixie
# shellcheck disable=SC2034  # script/bootstrap reads it
machine_releases=(bookworm trixie jammy noble)
machine_include=systemd,systemd-sysv,dbus,sudo,python3,python3-apt,ca-certificates,iproute2,procps

# Prints the packages that build images.
image_packages() {
  say mmdebstrap
  is_debian || say debian-archive-keyring
  ! is_ubuntu "$machine_release" || say ubuntu-keyring
  # Without root, mmdebstrap uses a user namespace.
  ((EUID == 0)) || say uidmap
}

is_ubuntu() { [[ $1 == jammy || $1 == noble ]]; }

# sources_of RELEASE: prints the sources of this machine for another release of its distribution. Prints nothing if it has
# none; mmdebstrap then uses its defaults.
sources_of() {
  local origin=Debian components='main|contrib'
  if is_ubuntu "$1"; then origin=Ubuntu components='main|universe'; fi
  # shellcheck disable=SC2016  # apt-get expands these, not the shell
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' "Origin: $origin" |
    sort -u | grep -E "^deb https?://.* ($components)\$" | sed -E "s/ [a-z]+((-updates|-security)? [a-z]+)\$/ $1\1/" || true
}

# build_root RELEASE PACKAGES FILE [OPTION...]: builds a root file system from packages.
build_root() {
  local release=$1 packages=$2 file=$3 sources
  shift 3
  mkdir -p "$images"
  sources=$(mktemp --suffix=.list)
  sources_of "$release" >"$sources"
  # Skips fsync, which takes most of the installation time: the files are not needed after a crash.
  mmdebstrap --variant=minbase --include="$packages" --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    "$@" "$release" "$file" "$([[ -s $sources ]] && say "$sources")"
  rm -f -- "$sources"
}

# --- the image of a machine: a container that acts as a server -----------------------------------------

# Digest of what the image is built from; a label of the image has it.
machine_recipe() {
  { say "$machine_include $machine_image:$machine_release with lists"; cat -- "$ca_bundle"; sources_of "$machine_release"; } |
    sha256sum | cut -c1-16
}

machine_image_is_current() {
  [[ $(docker image inspect --format '{{index .Config.Labels "ag-ui.recipe"}}' "$machine_image:$machine_release") == "$(machine_recipe)" ]]
}

build_machine_image() {
  local root=$images/machine-$machine_release.tar
  # Keeps the package lists, as on a server. Without them Ansible's apt module would take the age of the empty folder for
  # that of the lists, and not update them.
  build_root "$machine_release" "$machine_include" "$root" --skip=cleanup/apt/lists \
    --customize-hook="copy-in $ca_bundle /etc/ssl/certs"
  docker import --change 'CMD ["/lib/systemd/systemd"]' --change "LABEL ag-ui.recipe=$(machine_recipe)" \
    "$root" "$machine_image:$machine_release"
  rm -f -- "$root"
}

# --- the base image of the backend ------------------------------------------------------------------------

# The role copies the archive to a host, so the archive has to exist too.
python_image_is_there() { [[ -s $python_archive ]] && docker image inspect "$python_image"; }

registry_answers() { timeout 8 docker manifest inspect python:3.12-slim; }

make_python_image() {
  local root=$images/python.tar
  if registry_answers; then
    docker pull --quiet python:3.12-slim
    docker tag python:3.12-slim "$python_image"
  else
    build_root "$python_release" ca-certificates,python3,python3-venv "$root"
    docker import --change 'CMD ["python3"]' "$root" "$python_image"
    rm -f -- "$root"
  fi
  mkdir -p "$images"
  docker save --output "$python_archive.new" "$python_image"
  mv -- "$python_archive.new" "$python_archive"
}
