#!/bin/sh
# Collects in .cache/tools what the tests need and npm cannot bring (Debian, amd64):
#
#   busybox    built from Debian's source package: static, with inotifyd
#   bin/       its applets as symlinks, for a PATH like that of the agent's image
#   vmlinuz    Debian's kernel for virtual machines
#   modules/   the modules that the guest loads, numbered in load order
#   curl/      curl and its libraries, laid out as below a root directory
#
#   test/tools.sh          builds what is missing; as root it also installs packages
#   test/tools.sh --check  names each missing tool and the command that installs it;
#                          exit status 1 if there is any
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
cache=$repo/.cache
tools=$cache/tools
build=$cache/tools.build

# What the tests and the builds below run, as command=package.
commands='
  bzip2=bzip2
  chattr=e2fsprogs
  cpio=cpio
  curl=curl
  dash=dash
  dpkg-source=dpkg-dev
  gawk=gawk
  gcc=gcc
  ldd=libc-bin
  make=make
  modprobe=kmod
  openssl=openssl
  patch=patch
  prometheus-node-exporter=prometheus-node-exporter
  promtool=prometheus
  ps=procps
  qemu-system-x86_64=qemu-system-x86
  shellcheck=shellcheck
  shfmt=shfmt
  unzip=unzip
  xz=xz-utils
'

main() {
  case ${1-} in
    --check) check ;;
    '')
      is_current || update_lists
      install_packages
      is_current || collect
      ;;
    *) die "usage: $0 [--check]" ;;
  esac
}

check() {
  missing=$(missing_packages)
  for package in $missing; do
    echo "missing: $package (apt-get install $package)"
  done
  if ! is_current; then
    echo "missing: busybox, kernel and curl for the guest (test/tools.sh)"
    missing="$missing .cache/tools"
  fi
  [ -z "$missing" ]
}

# Packages of the commands that are not to be found, and of the static C library.
missing_packages() {
  for pair in $commands; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || echo "${pair#*=}"
  done
  [ -e "$(gcc -print-file-name=libc.a 2>/dev/null)" ] || echo libc6-dev
}

update_lists() {
  [ "$(id -u)" -ne 0 ] || apt-get -qq update
}

install_packages() {
  missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  # shellcheck disable=SC2086 # a list of words
  set -- $missing
  [ "$(id -u)" -eq 0 ] || die "missing: $*; run as root: apt-get install $*"
  log "installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@" >/dev/null
}

# The stamp says which version of this script made the tools.
stamp() { cksum <"$repo/test/tools.sh"; }

is_current() { [ "$(cat "$tools/stamp" 2>/dev/null)" = "$(stamp)" ]; }

collect() {
  rm -rf "$build"
  mkdir -p "$build/tools"
  # apt drops to a user of its own for downloads if it can write there.
  [ "$(id -u)" -ne 0 ] || chown _apt "$build"
  cd "$build"

  build_busybox
  collect_kernel
  collect_curl

  stamp >tools/stamp
  rm -rf "$tools"
  mv tools "$tools"
  cd "$repo"
  rm -rf "$build"
}

build_busybox() {
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
  cp busybox/busybox tools/
  mkdir tools/bin
  for applet in $(tools/busybox --list); do
    ln -s ../busybox "tools/bin/$applet"
  done
  [ -e tools/bin/inotifyd ] || die 'busybox was built without inotifyd'
}

configure() {
  sed -i "/CONFIG_$1[= ]/d" .config
  echo "CONFIG_$1=$2" >>.config
}

# Unpacks Debian's source package $1 into ./$1, with a source list and package lists of
# our own: the user's configuration of apt is only read.
fetch_source() {
  mkdir -p apt/lists/partial
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck disable=SC2016 # apt fills these in
  apt-get indextargets 'Created-By: Packages' 'Origin: Debian' \
    --format "deb-src [signed-by=$keyring] "'$(REPO_URI) $(RELEASE) $(COMPONENT)' |
    sort -u >apt/sources.list
  [ -s apt/sources.list ] || die 'apt knows no Debian archive; run: apt-get update'
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

collect_kernel() {
  log 'fetching the kernel'
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
  [ -n "$package" ] || die 'apt does not know linux-image-cloud-amd64; run: apt-get update'
  logged apt-get download "$package"
  dpkg-deb --extract "$package"_*.deb kernel
  cp kernel/boot/vmlinuz-* tools/vmlinuz

  release=$(ls kernel/lib/modules)
  depmod -b kernel "$release"
  mkdir tools/modules
  number=10
  # One line for each module, dependencies first: "insmod /path/of/module.ko".
  for module in $(modprobe -d kernel -S "$release" --show-depends -a virtio_pci virtio_net |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
    name=$(basename "$module" .xz)
    case $module in
      *.xz) xz -dc "$module" >"tools/modules/$number-$name" ;;
      *) cp "$module" "tools/modules/$number-$name" ;;
    esac
    number=$((number + 1))
  done
}

collect_curl() {
  log 'collecting curl'
  curl=$(command -v curl)
  mkdir -p tools/curl/usr/bin
  cp "$curl" tools/curl/usr/bin/
  # "libx.so => /lib/libx.so (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)"
  ldd "$curl" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }' |
    while read -r library; do
      mkdir -p "tools/curl$(dirname "$library")"
      cp -L "$library" "tools/curl$library"
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

main "$@"
