#!/bin/sh
# install.sh: put the Runout agent on a Raspberry Pi (Raspberry Pi OS 64-bit, or any Debian 12 or 13).
# May be run again at any time, to update too: what is as it should be is left alone.
set -eu

usage() {
  cat <<'END'
usage: sudo sh deploy/pi/install.sh [OPTION...]
  --wheel FILE    install this wheel; without: what stands in this checkout
  --wheels DIR    take every package from this folder: for a device without a network
  --extra NAME    more of Runout, as modbus; may be repeated
  --prefix DIR    where the program goes (/opt/runout)
  --python PROG   the Python to use; without: the newest that is there
  --no-broker     mosquitto is not wanted on this device
  --back          switch back to the program before the last update
  --dry-run       say what would be done, and do nothing
  --root DIR      a trial: everything below DIR; no user and no service is touched
END
}

say() { echo "runout: $1"; }
fail() { echo "runout: $1" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
wheel='' wheels='' extras='' root='' prefix=/opt/runout python='' broker=yes back='' dry='' changes=0
units='' conf_changed='' program_changed=''

while [ $# -gt 0 ]; do
  option=$1
  case $option in
    --wheel | --wheels | --extra | --prefix | --python | --root)
      [ $# -ge 2 ] || fail "$option: give it a value; --help says which"
      case $option in
        --wheel) wheel=$2 ;;
        --wheels) wheels=$2 ;;
        --extra) extras=${extras:+$extras,}$2 ;;
        --prefix) prefix=${2%/} ;;
        --python) python=$2 ;;
        --root) root=${2%/} ;;
      esac
      shift 2 ;;
    --no-broker) broker=''; shift ;;
    --back) back=yes; shift ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    *) fail "$option is not an option; --help says which there are" ;;
  esac
done
case $prefix in /*) ;; *) fail "--prefix $prefix: give a path that begins with /" ;; esac
case $prefix in *[!A-Za-z0-9/._-]*) fail "--prefix $prefix: letters, digits and / . _ - only" ;; esac
case $root in '' | /*) ;; *) root=$(pwd)/$root ;; esac

# -- what is done, or only said -------------------------------------------------------------

# act WORDS COMMAND...: count and say a change, and make it unless this is a dry run.
act() {
  changes=$((changes + 1))
  if [ -n "$dry" ]; then
    say "would $1"
    return 0
  fi
  say "$1"
  shift
  "$@"
}

own() { # own OWNER:GROUP PATH; a trial leaves everything with whoever runs it
  [ -n "$root" ] || chown "$1" "$2"
}

lay() { # lay CONTENT TARGET MODE OWNER:GROUP, by a rename: never half a file
  cp "$1" "$2.part" && chmod "$3" "$2.part" && own "$4" "$2.part" && mv -f "$2.part" "$2"
}

make_folder() { mkdir -p "$1" && chmod "$2" "$1" && own "$3" "$1"; }

folder() { # folder PATH MODE OWNER:GROUP
  [ -d "$root$1" ] || act "make the folder $1" make_folder "$root$1" "$2" "$3"
}

# keep SHIPPED TARGET MODE OWNER:GROUP: a file that belongs to the user once it is there.
# Sets changed to yes if the file itself was written.
keep() {
  changed=''
  if [ ! -e "$root$2" ]; then
    act "write $2" lay "$1" "$root$2" "$3" "$4"
    changed=yes
  elif ! cmp -s "$1" "$root$2" && ! cmp -s "$1" "$root$2.new"; then
    act "keep $2 as it is; this version's own is $2.new" lay "$1" "$root$2.new" "$3" "$4"
  fi
}

# renew CONTENT TARGET MODE: a file that is ours. Sets changed.
renew() {
  changed=''
  if ! cmp -s "$1" "$root$2"; then
    act "write $2" lay "$1" "$root$2" "$3" root:root
    changed=yes
  fi
}

point() { ln -s "$1" "$2.part" && mv -fT "$2.part" "$2"; }

# link TARGET PATH
link() {
  [ "$(readlink "$root$2" 2>/dev/null || true)" = "$1" ] \
    || act "link $2 to $1" point "$1" "$root$2"
}

# -- what this machine must have ------------------------------------------------------------

[ -n "$root" ] || [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "run it as root: sudo sh $0"
[ "$(getconf LONG_BIT)" = 64 ] \
  || fail "this system is a 32-bit one: put the 64-bit Raspberry Pi OS on the card"

if [ -z "$python" ]; then
  for name in python3.13 python3.12 python3.11 python3 python3.14; do
    # Asked, not looked for: a version manager's shim may be there for a version that is not.
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.maxsize < 2**32)' 2>/dev/null; then
      python=$name
      break
    fi
  done
fi
missing=''
if [ -z "$python" ]; then
  missing='a 64-bit Python 3.11 or later'
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  missing='python3-venv'
fi
if [ -n "$broker" ] && [ -z "$root" ] && ! PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null; then
  missing="${missing:+$missing }mosquitto"
fi
if [ -n "$missing" ]; then
  words="missing: $missing: apt install ${missing##a 64-bit Python 3.11 or later}"
  case $missing in a*) words="missing: $missing: it comes with Debian 12 and Raspberry Pi OS Bookworm" ;; esac
  [ -n "$dry" ] || fail "$words (or --no-broker, where another device has one)"
  say "$words"
fi
[ -z "$wheel" ] || [ -f "$wheel" ] || fail "--wheel $wheel: there is no such file"
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: there is no such folder"
[ -n "$wheel$back" ] || [ -f "$here/../../pyproject.toml" ] || fail "this is not a checkout: give --wheel FILE"

build=$root$prefix/build
work=$(mktemp -d)
trap 'rm -rf "$work" "$build"' EXIT
trap 'exit 1' HUP INT TERM

# -- the program ----------------------------------------------------------------------------

# Each version in a folder of its own, and a link that is switched once it is whole: power that
# fails during an update leaves the program that was there.

switch_to() { # switch_to NAME, of a folder in the prefix
  now=$(readlink "$root$prefix/venv" 2>/dev/null || true)
  [ -z "$now" ] || [ "$now" = "$1" ] || point "$now" "$root$prefix/venv.previous"
  point "$1" "$root$prefix/venv"
}

sources() { # the folder of the checkout, without what was made in it
  tar -C "$here/../.." --exclude=.venv --exclude=.git --exclude=out --exclude=build --exclude=dist \
    --exclude='*.egg-info' --exclude=__pycache__ --exclude='.*_cache' --exclude=.hypothesis "$@"
}

digest() {
  {
    "$python" -c 'import sys; print(sys.version, sys.executable)'
    echo "$extras"
    if [ -n "$wheel" ]; then
      cat "$wheel"
    else
      for part in agent contract demo flowerapp server simulator; do
        (cd "$here/../.." && find "$part" -name __pycache__ -prune -o -type f -print | LC_ALL=C sort \
          | while IFS= read -r file; do echo "$file"; cat "$file"; done)
      done
      cat "$here/../../pyproject.toml"
    fi
  } | sha256sum | cut -c 1-12
}

pip() { # as pip, from --wheels if that was given
  PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 TMPDIR=$build \
    "$root$prefix/$name/bin/python" -m pip "$@" --quiet ${wheels:+--no-index --find-links "$wheels"}
}

build_program() {
  free_kb=$(df -Pk "$root$prefix" | awk 'NR == 2 { print $4 }')
  [ "$free_kb" -gt 900000 ] || fail "$prefix: $((free_kb / 1000)) MB free, 900 are needed"
  rm -rf "$root$prefix/${name:?}"
  # Not in /tmp, which may be memory.
  mkdir -p "$build"
  "$python" -m venv "$root$prefix/$name" || fail "$python cannot make a virtual environment"
  if [ -n "$wheel" ]; then
    made=$wheel
  else
    mkdir "$build/source"
    sources -cf - . | tar -C "$build/source" -xf -
    pip wheel --no-deps --wheel-dir "$build/dist" "$build/source" || fail "the wheel could not be built: is there a network?"
    made=$(echo "$build"/dist/*.whl)
  fi
  # Wheels only: a device has no compiler.
  pip install --no-cache-dir --only-binary=:all: "$made${extras:+[$extras]}" \
    || fail "the packages could not be installed: is there a network? (else: --wheels DIR)"
  : >"$root$prefix/$name/whole"
  switch_to "$name"
  rm -rf "$build"
}

forget_older() {
  for old in "$root$prefix"/venv-*; do
    case ${old##*/} in
      "$(readlink "$root$prefix/venv")" | "$(readlink "$root$prefix/venv.previous" 2>/dev/null || true)") ;;
      *) [ ! -d "$old" ] || act "remove the older ${old#"$root"}" rm -rf "$old" ;;
    esac
  done
}

if [ -n "$back" ]; then
  before=$(readlink "$root$prefix/venv.previous" 2>/dev/null || true)
  if [ -z "$before" ] || [ ! -e "$root$prefix/$before/whole" ]; then
    fail "--back: no program before this one is kept"
  fi
  act "switch back to $prefix/$before" switch_to "$before"
  program_changed=yes
else
  folder "$prefix" 0755 root:root
  name=venv-$(digest)
  if [ "$(readlink "$root$prefix/venv" 2>/dev/null || true)" != "$name" ] || [ ! -e "$root$prefix/$name/whole" ]; then
    if [ -e "$root$prefix/$name/whole" ]; then
      act "switch to $prefix/$name, which is there" switch_to "$name"
    else
      act "install the program into $prefix/$name (some minutes)" build_program
    fi
    program_changed=yes
  fi
  [ -n "$dry" ] || forget_older
fi
folder /usr/local/bin 0755 root:root
link "$root$prefix/venv/bin/runout-agent" /usr/local/bin/runout-agent

# -- user, folders, configuration -----------------------------------------------------------

add_user() {
  useradd --system --user-group --home-dir /var/lib/runout --no-create-home --shell /usr/sbin/nologin runout
}

if [ -z "$root" ]; then
  id runout >/dev/null 2>&1 || act "add the user runout" add_user
  # The service has this group anyway; this is for `sudo -u runout runout-agent ...`.
  if getent group dialout >/dev/null && ! id -nG runout 2>/dev/null | grep -qw dialout; then
    act "let the user runout use serial ports (group dialout)" usermod -a -G dialout runout
  fi
fi
folder /etc/runout 0750 root:runout
folder /var/lib/runout 0750 runout:runout
keep "$here/agent.toml" /etc/runout/agent.toml 0640 root:runout
if [ -n "$broker" ]; then
  folder /etc/mosquitto/conf.d 0755 root:root
  keep "$here/mosquitto-runout.conf" /etc/mosquitto/conf.d/runout.conf 0644 root:root
  conf_changed=$changed
fi

# -- services -------------------------------------------------------------------------------

folder /etc/systemd/system 0755 root:root
for unit in runout-agent.service runout-node.service; do
  sed "s|/opt/runout|$prefix|g" "$here/$unit" >"$work/$unit"
  renew "$work/$unit" "/etc/systemd/system/$unit" 0644
  units=$units$changed
done
version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
if [ "${version:-0}" -ge 254 ]; then # an older one would only complain of it
  for unit in runout-agent runout-node; do
    folder "/etc/systemd/system/$unit.service.d" 0755 root:root
    renew "$here/backoff.conf" "/etc/systemd/system/$unit.service.d/backoff.conf" 0644
    units=$units$changed
  done
fi
sed "s|/opt/runout|$prefix|g" "$here/uninstall.sh" >"$work/uninstall.sh"
renew "$work/uninstall.sh" "$prefix/uninstall.sh" 0755

if [ -n "$root" ]; then
  say "a trial in $root: no service was touched"
elif [ ! -d /run/systemd/system ]; then
  say "no systemd runs here: start the agent yourself: runout-agent run --config /etc/runout/agent.toml"
else
  [ -z "$units" ] || act "tell systemd of the units" systemctl daemon-reload
  [ -z "$conf_changed" ] || act "restart mosquitto with its new configuration" systemctl restart mosquitto
  systemctl is-enabled --quiet runout-agent 2>/dev/null \
    || act "let the agent start with the device" systemctl enable --quiet runout-agent
  if [ -n "$units$program_changed" ]; then
    act "restart what runs" systemctl try-restart runout-agent runout-node
  fi
fi

if [ "$changes" = 0 ]; then
  say "everything is as it should be"
elif [ -z "$dry" ]; then
  say "done. Next: edit /etc/runout/agent.toml, then"
  say "  runout-agent check --config /etc/runout/agent.toml && systemctl restart runout-agent"
  say "  runout-agent doctor --config /etc/runout/agent.toml"
fi
