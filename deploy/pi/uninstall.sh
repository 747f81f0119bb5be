#!/bin/sh
# uninstall.sh: take the Runout agent off this device; configuration and data stay unless --purge.
set -eu

usage() {
  cat <<'END'
usage: sudo sh uninstall.sh [OPTION...]
  --purge         remove the configuration, the data and the user runout, too
  --prefix DIR    where the program is (/opt/runout)
  --dry-run       say what would be done, and do nothing
  --root DIR      of a trial: everything is below DIR; no user and no service is touched
END
}

say() { echo "runout: $1"; }
fail() { echo "runout: $1" >&2; exit 1; }

purge='' prefix=/opt/runout dry='' root='' changes=0
while [ $# -gt 0 ]; do
  option=$1
  case $option in
    --prefix | --root)
      [ $# -ge 2 ] || fail "$option: give it a value; --help says which"
      case $option in --prefix) prefix=${2%/} ;; --root) root=${2%/} ;; esac
      shift 2 ;;
    --purge) purge=yes; shift ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    *) fail "$option is not an option; --help says which there are" ;;
  esac
done
case $prefix in /?*) ;; *) fail "--prefix $prefix: give a path that begins with /" ;; esac
[ -n "$root" ] || [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "run it as root: sudo sh $0"

act() { # act WORDS COMMAND...
  changes=$((changes + 1))
  if [ -n "$dry" ]; then
    say "would $1"
    return 0
  fi
  say "$1"
  shift
  "$@"
}

remove() { # remove PATH, a file, a link or a folder
  if [ -e "$root$1" ] || [ -L "$root$1" ]; then
    act "remove $1" rm -rf "$root$1"
  fi
}

running=''
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
  running=yes
  for unit in runout-node runout-agent; do
    [ ! -e "/etc/systemd/system/$unit.service" ] || act "stop $unit" systemctl disable --now --quiet "$unit"
  done
fi
for unit in runout-agent runout-node; do
  remove "/etc/systemd/system/$unit.service"
  remove "/etc/systemd/system/$unit.service.d/backoff.conf"
  # What `systemctl edit` put there is the user's.
  [ -n "$dry" ] || rmdir "$root/etc/systemd/system/$unit.service.d" 2>/dev/null || true
done
[ -z "$running" ] || act "tell systemd of it" systemctl daemon-reload
case $(readlink "$root/usr/local/bin/runout-agent" 2>/dev/null || true) in
  "$root$prefix"/*) remove /usr/local/bin/runout-agent ;;
esac
# By name: the folder may hold what is not ours.
for part in venv venv.previous build uninstall.sh; do remove "$prefix/$part"; done
for part in "$root$prefix"/venv-*; do
  [ ! -d "$part" ] || remove "${part#"$root"}"
done
[ -n "$dry" ] || rmdir "$root$prefix" 2>/dev/null || true

if [ -n "$purge" ]; then
  remove /etc/runout
  remove /var/lib/runout
  had_conf=''
  [ ! -e "$root/etc/mosquitto/conf.d/runout.conf" ] || had_conf=yes
  remove /etc/mosquitto/conf.d/runout.conf
  remove /etc/mosquitto/conf.d/runout.conf.new
  if [ -n "$had_conf" ] && [ -n "$running" ]; then
    act "restart mosquitto, if it runs, without it" systemctl try-restart mosquitto
  elif [ -n "$had_conf" ]; then
    say "restart mosquitto: until then it goes on with what was in it"
  fi
  if [ -z "$root" ] && id runout >/dev/null 2>&1; then act "remove the user runout" userdel runout; fi
else
  for kept in /etc/runout /var/lib/runout /etc/mosquitto/conf.d/runout.conf; do
    [ ! -e "$root$kept" ] || say "kept: $kept (--purge removes it)"
  done
fi
[ "$changes" != 0 ] || say "there was nothing to remove"
