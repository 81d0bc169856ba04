#!/bin/sh
# Brings what the tests need and npm cannot bring, on Debian and Ubuntu, amd64: packages, and in
# .cache/tools
#
#   busybox    built from the distribution's source package: static, with inotifyd
#   bin/       its applets as symlinks, for a PATH like that of the agent's image
#   programs/  promtool and the node exporter: out of their packages, which would start services
#
# and for the kernel tests
#
#   vmlinuz    the distribution's kernel for virtual machines
#   modules/   the modules that the guest loads, numbered in load order
#   curl/      curl and its libraries, laid out as below a root directory
#   systemd-RELEASE.cpio   systemd, runc and crun of releases of Debian: scripts/systemd-rootfs.sh
#
#   scripts/tools.sh [root] [kernel] [lint]  brings what `npm test` needs; with `kernel` what the kernel
#                                         tests need as well, with `lint` what .ci/run needs as well;
#                                         with `root` it fails if the tests could not become root
#   scripts/tools.sh systemd-RELEASE...      brings that release of Debian as well
#   scripts/tools.sh --check [kernel]...     only names what is missing; exit status 1 if there is any
#
# npm runs it before each script that needs it. It installs packages as root, or with sudo if that
# asks for no password.
set -eu

# Not everybody has the programs of root there.
PATH=$PATH:/usr/sbin:/sbin
repo=$(cd "$(dirname "$0")/.." && pwd)
cache=$repo/.cache
tools=$cache/tools
build=$cache/tools.$$
# Says which version of these scripts made a part of .cache/tools.
stamp=$(cat "$repo/scripts/tools.sh" "$repo/scripts/systemd-rootfs.sh" | cksum)
# What is to be done once all is there: the script that npm was asked for.
command="npm run ${npm_lifecycle_event-pretest}"
case $command in
  *' pretest') command='npm test' ;;
  *' pre'*) command="npm run ${npm_lifecycle_event#pre}" ;;
esac

# What the tests and the builds below run, as command=package.
commands='
  chattr=e2fsprogs
  curl=curl
  dpkg-source=dpkg-dev
  gcc=gcc
  git=git
  make=make
  mount=mount
  openssl=openssl
  ps=procps
  unzip=unzip
'
kernel_commands='
  cpio=cpio
  modprobe=kmod
  qemu-system-x86_64=qemu-system-x86
'
lint_commands='
  gawk=gawk
  shellcheck=shellcheck
  shfmt=shfmt
'

main() {
  check='' root='' parts='busybox programs'
  for word; do
    case $word in
      --check) check=yes ;;
      root) root=yes ;;
      kernel)
        parts="$parts kernel systemd-bookworm systemd-trixie"
        commands="$commands $kernel_commands"
        ;;
      lint) commands="$commands $lint_commands" ;;
      systemd-*) parts="$parts $word" ;;
      *) die "usage: $0 [--check] [root] [kernel] [lint] [systemd-RELEASE]..." ;;
    esac
  done

  is_supported || elsewhere
  packages=$(missing_packages | tr '\n' ' ')
  parts=$(missing_parts | tr '\n' ' ')
  if [ -n "$check" ]; then
    [ -z "$packages$parts" ] || die "missing: $packages$parts"
    return
  fi
  if [ -n "$packages$root" ]; then
    can_be_root || ask_for_root
  fi
  [ -z "$packages$parts" ] || bring
}

# Packages of the commands that are not to be found, and of the static C library.
missing_packages() {
  for pair in $commands; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || echo "${pair#*=}"
  done
  [ -e "$(gcc -print-file-name=libc.a 2>/dev/null)" ] || echo libc6-dev
}

# Parts of .cache/tools that are not there, or were made by another version of this script.
missing_parts() {
  for part in $parts; do
    [ "$(cat "$tools/$part.stamp" 2>/dev/null)" = "$stamp" ] || echo "$part"
  done
}

is_supported() {
  [ "$(uname -s)" = Linux ] && command -v apt-get >/dev/null &&
    [ "$(dpkg --print-architecture)" = amd64 ]
}

elsewhere() {
  log "\`$command\` is for Debian and Ubuntu on amd64. With a container:"
  log "  docker run --rm --privileged --platform linux/amd64 -v '$repo:/repo:ro' docker.io/library/node:20-bookworm sh -c 'cp -r /repo /src && cd /src && npm ci && $command'"
  die 'What needs Node.js alone: npm run test:library'
}

can_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

ask_for_root() {
  reason='for tests that mount, and make files immutable'
  [ -z "$packages" ] || reason="to install ${packages% }"
  log "\`$command\` needs root, or sudo without a password, $reason. Run:"
  if command -v sudo >/dev/null; then
    log "  sudo -v && $command"
  else
    log "  su -c '$command'"
  fi
  die 'What needs Node.js alone: npm run test:library'
}

bring() {
  ! can_be_root || as_root apt-get -qq update
  if [ -n "$packages" ]; then
    log "installing $packages"
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 \
      install --no-install-recommends $packages >/dev/null
  fi

  trap 'rm -rf "$build"' EXIT
  trap 'exit 1' INT TERM
  mkdir -p "$tools"
  for part in $parts; do
    mkdir -p "$build/new"
    # apt drops to a user of its own for downloads if it can write there.
    [ "$(id -u)" -ne 0 ] || chown _apt "$build"
    cd "$build"
    "bring_${part%%-*}" "${part#*-}"
    for file in new/*; do
      rm -rf "${tools:?}/${file#new/}"
      mv "$file" "$tools/"
    done
    echo "$stamp" >"$tools/$part.stamp"
    cd "$repo"
    rm -rf "$build"
  done
}

bring_busybox() {
  log 'building busybox'
  fetch_source busybox
  (
    cd busybox
    make defconfig >/dev/null 2>&1
    configure STATIC y
    configure INOTIFYD y
    # Does not compile against the headers of Linux 6.8 and later.
    configure TC n
    yes '' | make oldconfig >/dev/null 2>&1
    logged make -j "$(nproc)" busybox
  )
  cp busybox/busybox new/
  mkdir new/bin
  for applet in $(new/busybox --list); do
    ln -s ../busybox "new/bin/$applet"
  done
  [ -e new/bin/inotifyd ] || die 'busybox was built without inotifyd'
}

configure() {
  sed -i "/CONFIG_$1[= ]/d" .config
  echo "CONFIG_$1=$2" >>.config
}

# Unpacks the source package $1 into ./$1, with a source list and package lists of our own: the
# user's configuration of apt is only read.
fetch_source() {
  mkdir -p apt/lists/partial
  for origin in Debian Ubuntu; do
    keyring=/usr/share/keyrings/$(echo "$origin" | tr DU du)-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt fills these in
    [ ! -e "$keyring" ] ||
      apt-get indextargets 'Created-By: Packages' "Origin: $origin" 'Component: main' \
        --format "deb-src [signed-by=$keyring] "'$(REPO_URI) $(RELEASE) $(COMPONENT)'
  done | sort -u >apt/sources.list
  [ -s apt/sources.list ] || die 'apt knows no archive of Debian or Ubuntu; as root, this helps: apt-get update'
  cat >apt/apt.conf <<END
Dir::Etc::SourceList "$PWD/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$PWD/apt/lists";
END
  [ "$(id -u)" -ne 0 ] || chown -R _apt apt
  logged apt-get -c apt/apt.conf update
  logged apt-get -c apt/apt.conf source --download-only "$1"
  logged dpkg-source --extract "$1"_*.dsc "$1"
}

# The first dependency of package $1 that begins with $2, if there is one.
depends() {
  apt-cache depends "$1" 2>/dev/null |
    awk -v start="$2" '$1 == "Depends:" && index($2, start) == 1 { print $2; exit }'
}

bring_programs() {
  log 'fetching promtool and the node exporter'
  # In a package of its own since Debian 13.
  promtool=$(depends prometheus promtool)
  logged apt-get download "${promtool:-prometheus}" prometheus-node-exporter
  for package in *.deb; do
    dpkg-deb --extract "$package" root
  done
  mkdir new/programs
  cp root/usr/bin/promtool root/usr/bin/prometheus-node-exporter new/programs/
}

bring_kernel() {
  log 'fetching the kernel'
  # Debian's, or else Ubuntu's, which has its modules in a package of their own.
  image=$(depends linux-image-cloud-amd64 linux-image-)
  image=${image:-$(depends linux-image-virtual linux-image-)}
  [ -n "$image" ] || die 'apt knows no kernel for virtual machines; as root, this helps: apt-get update'
  # shellcheck disable=SC2046 # one word or none
  logged apt-get download "$image" $(depends "$image" linux-modules-)
  for package in *.deb; do
    dpkg-deb --extract "$package" kernel
  done
  cp kernel/boot/vmlinuz-* new/vmlinuz

  [ -d kernel/lib ] || ln -s usr/lib kernel/lib
  release=$(ls kernel/lib/modules)
  depmod -b kernel "$release"
  mkdir new/modules
  number=10
  # One line for each module, dependencies first: "insmod /path/of/module.ko".
  for module in $(modprobe -d kernel -S "$release" --show-depends -a virtio_pci virtio_net |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
    name=$(basename "$module" .xz)
    case $module in
      *.ko) cp "$module" "new/modules/$number-$name" ;;
      *.xz) xz -dc "$module" >"new/modules/$number-$name" ;;
      *) die "cannot unpack $module" ;;
    esac
    number=$((number + 1))
  done
  collect_curl
}

collect_curl() {
  curl=$(command -v curl)
  mkdir -p new/curl/usr/bin
  cp "$curl" new/curl/usr/bin/
  # "libx.so => /lib/libx.so (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)"
  ldd "$curl" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }' |
    while read -r library; do
      mkdir -p "new/curl$(dirname "$library")"
      cp -L "$library" "new/curl$library"
    done
}

# Runs a command and shows its output only if it fails.
logged() {
  "$@" >"$build/log" 2>&1 || {
    tail -n 20 "$build/log" >&2
    die "failed: $*"
  }
}

log() { echo "tools: $*" >&2; }

die() {
  log "$*"
  exit 1
}

# shellcheck source=/dev/null # The file is checked by itself.
. "$repo/scripts/systemd-rootfs.sh"
main "$@"
