#!/bin/sh
# Proves that `npm ci && npm test` is all the set-up there is, in a root file system with nothing in it
# but the essential packages, apt, Node.js and npm.
#
#   scripts/fresh-machine.sh [--sudo] [jest arguments]
#
# --sudo: as a user who may use sudo without a password; as root otherwise.
#
# It needs root and mmdebstrap, on Debian or Ubuntu, and makes a machine of the same release: with this
# machine's sources and settings of apt and npm, and with its Node.js, because that of Debian 12 is older
# than what package.json asks for, and its npm would bring hundreds of packages. It has what is
# committed, not what is not.
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
root=$(mktemp -d)
user=root
home=/root

main() {
  if [ "${1-}" = --sudo ]; then
    shift
    user=developer
    home=/home/developer
  fi
  trap 'rm -rf "$root"' EXIT
  trap 'exit 1' INT TERM

  step 'making the machine' make_machine
  add_node
  add_settings
  git clone --quiet --no-hardlinks "$repo" "$root/repo"
  [ "$user" = root ] || add_user

  step 'npm ci' inside npm ci --no-audit --no-fund
  step 'npm run test:library' inside npm run test:library
  step 'npm test' inside npm test -- "$@"
  step 'scripts/tools.sh once more' inside sh scripts/tools.sh root
}

# Runs a command and says how long it took.
step() {
  name=$1
  shift
  echo "=== $name"
  start=$(date +%s)
  "$@"
  echo "=== $name: $(($(date +%s) - start)) s"
}

make_machine() {
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # A library of Node.js's.
  include=libstdc++6
  [ "$user" = root ] || include=$include,passwd,sudo
  # shellcheck disable=SC2016,SC2046 # mmdebstrap gives the hook $1, the new root; a list of files
  mmdebstrap --quiet --variant=apt --include="$include" \
    --setup-hook='cp -r /etc/apt/apt.conf.d "$1/etc/apt/"' \
    "$codename" "$root" $(find /etc/apt -name '*.list' -o -name '*.sources')
}

add_node() {
  mkdir -p "$root/usr/local/lib/node_modules"
  cp "$(node -p process.execPath)" "$root/usr/local/bin/node"
  cp -r "$(npm root -g)/npm" "$root/usr/local/lib/node_modules/"
  for name in npm npx; do
    ln -s "../lib/node_modules/npm/bin/$name-cli.js" "$root/usr/local/bin/$name"
  done
}

# The network, and the certificates and npm settings that are needed to reach a registry from here.
add_settings() {
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  put "$(npm config get userconfig)" "$home/.npmrc"
  put "$(npm config get globalconfig)" /usr/local/etc/npmrc
  for file in /etc/ssl/certs/ca-certificates.crt "${NODE_EXTRA_CA_CERTS-}"; do
    put "$file" "$file"
  done
}

# Copies a file of this machine, if it is there, to a path of the new one.
put() {
  [ -f "$1" ] || return 0
  mkdir -p "$root/$(dirname "$2")"
  cp -L "$1" "$root/$2"
}

add_user() {
  chroot "$root" useradd --shell /bin/sh "$user"
  echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
  mkdir -p "$root/$home"
  chroot "$root" chown -R "$user:" "$home" /repo
}

# Runs a command in the new machine, in the clone. Its mounts and processes end with it.
inside() {
  path=/usr/local/bin:/usr/bin:/bin
  [ "$user" != root ] || path=/usr/local/sbin:/usr/sbin:/sbin:$path
  # shellcheck disable=SC2016 # for the inner shell
  unshare --mount --pid --fork --kill-child sh -euc '
    root=$1 user=$2
    shift 2
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot --userspec="$user:$user" "$root" env --chdir=/repo --unset=TMPDIR "$@"
  ' inside "$root" "$user" HOME="$home" PATH="$path" "$@"
}

main "$@"
