#!/bin/sh
# What builds and runs images where neither is installed: Debian's packages, unpacked under .deploy-tools/images.
#   deploy/images/tools.sh fetch               get them
#   deploy/images/tools.sh buildah images      run one of them
# All that they would look for on the system is named here; images and containers are kept beside them.
set -eu
PACKAGES="buildah podman conmon runc catatonit netavark mmdebstrap golang-github-containers-common golang-github-containers-image"
root=$(cd "$(dirname "$0")/../.." && pwd)
tools=${SAAA_DEPLOY_TOOLS:-$root/.deploy-tools}/images
debian=$tools/debian

fetch() {
  command -v apt-get > /dev/null && command -v dpkg > /dev/null || { echo "image-tools: none, as this is no Debian"; return; }
  mkdir -p "$tools" && cd "$tools"
  rm -rf debian apt && mkdir -p apt/lists/partial apt/cache/archives/partial home/.config/containers
  own="-qq -o Dir::State::Lists=$PWD/apt/lists -o Dir::Cache=$PWD/apt/cache -o APT::Sandbox::User="
  # With the dependencies that this machine lacks, and only those.
  { apt-get $own update && apt-get $own --yes --no-install-recommends --reinstall --download-only install $PACKAGES; } \
    > apt.log 2>&1 || { cat apt.log; echo "image-tools: Debian's archive was not reached"; exit 1; }
  for package in apt/cache/archives/*.deb; do dpkg -x "$package" debian; done
  rm -rf apt
  cp debian/etc/containers/policy.json home/.config/containers/
  cat > storage.conf << END
[storage]
driver = "overlay"
graphroot = "$tools/storage"
runroot = "$tools/run"
END
  cat > containers.conf << END
[containers]
seccomp_profile = "$debian/usr/share/containers/seccomp.json"
apparmor_profile = "unconfined"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
conmon_path = ["$debian/usr/bin/conmon"]
helper_binaries_dir = ["$debian/usr/lib/podman", "$debian/usr/libexec/podman", "$debian/usr/bin"]
runtime = "runc"
tmp_dir = "$tools/run/libpod"
[engine.runtimes]
runc = ["$debian/usr/sbin/runc"]
[network]
network_backend = "netavark"
network_config_dir = "$tools/networks"
END
}

[ "$1" != fetch ] || { fetch; exit; }
[ -e "$debian/usr/bin/$1" ] || { echo "$1 is not in $tools; \`make image-tools\` fetches it" >&2; exit 127; }
export HOME="$tools/home" PATH="$debian/usr/bin:$debian/usr/sbin:$PATH"
export CONTAINERS_CONF="$tools/containers.conf" CONTAINERS_STORAGE_CONF="$tools/storage.conf"
export CONTAINERS_REGISTRIES_CONF="$debian/etc/containers/registries.conf"
export BUILDAH_ISOLATION=oci BUILDAH_RUNTIME="$debian/usr/sbin/runc"
exec "$@"
