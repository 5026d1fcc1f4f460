#!/bin/sh
# The base of the images where no registry can be reached: Debian's own packages, and Python 3.11 among them. Needs root.
#   deploy/images/base.sh NAME
set -eu
tools=$(dirname "$0")/tools.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
"$tools" mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root/root.tar"
container=$("$tools" buildah from scratch)
"$tools" buildah add --quiet "$container" "$root/root.tar" / > "$root/log" || { cat "$root/log"; exit 1; }
"$tools" buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd python3 "$container"
"$tools" buildah commit --quiet --rm "$container" "$1"
