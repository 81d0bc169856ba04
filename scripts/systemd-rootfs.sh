# A part of tools.sh: the root file systems of the kernel tests that need the real systemd and the real runc.
#
# systemd-RELEASE.cpio is a part of an initramfs, with that release of Debian below /debian. Its packages are from the
# archive that this machine's apt knows, whatever release the machine has itself.

bring_systemd() { # release
  log "fetching systemd and runc of Debian $1"
  mkdir root
  fetch "$1" systemd dbus runc crun dash
  # Packages of Debian 12 have files in /lib and /bin that belong to /usr.
  for name in bin sbin lib lib64; do
    mkdir -p "root/debian/usr/$name"
    ln -s "usr/$name" "root/debian/$name"
  done
  for package in archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C root/debian
  done
  finish root/debian
  (cd root && find . | cpio --quiet -o -H newc -R 0:0) >"new/systemd-$1.cpio"
}

# Downloads packages with all that they depend on, as for a machine that has none: to archives/.
fetch() { # release, packages
  mkdir -p lists/partial archives/partial
  : >status
  # shellcheck disable=SC2016 # apt fills these in
  archive=$(apt-get indextargets 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' \
    --format '$(REPO_URI)' | head -n 1)
  [ -n "$archive" ] || die 'apt knows no archive of Debian; on Debian this helps, as root: apt-get update'
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >sources.list
  cat >apt.conf <<END
Dir::Etc::SourceList "$PWD/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$PWD";
Dir::State::Status "$PWD/status";
Dir::Cache "$PWD";
END
  # apt drops to a user of its own for downloads if it can write there.
  [ "$(id -u)" -ne 0 ] || chown -R _apt .
  logged apt-get -c apt.conf update
  shift
  logged apt-get -c apt.conf --yes --no-install-recommends --download-only install "$@"
}

# What the packages' scripts would have made, as far as systemd needs it to start.
finish() { # root directory
  mv "$1/usr/share/dbus-1" dbus-1
  rm -rf "${1:?}/usr/share" "$1/usr/include" "$1"/usr/bin/perl* "$1"/usr/lib/*/*perl* "$1"/usr/lib/*/gconv
  mkdir "$1/usr/share"
  mv dbus-1 "$1/usr/share/"
  mkdir -p "$1/dev" "$1/image" "$1/proc" "$1/run" "$1/sys" "$1/tmp" "$1/var/log/containers"
  printf '%s\n' 'root:x:0:0::/:/bin/sh' 'messagebus:x:100:100::/:/bin/false' >"$1/etc/passwd"
  printf '%s\n' 'root:x:0:' 'messagebus:x:100:' >"$1/etc/group"
  # The bus, which crun needs, without all that a boot starts before it.
  for type in service socket; do
    mkdir "$1/etc/systemd/system/$type.d"
    printf '[Unit]\nDefaultDependencies=no\n' >"$1/etc/systemd/system/$type.d/alone.conf"
  done
  # Without one, systemd takes the boot for the first of this machine and enables all units.
  echo 11111111111111111111111111111111 >"$1/etc/machine-id"
}
