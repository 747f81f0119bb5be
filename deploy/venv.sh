#!/bin/sh
# venv.sh FOLDER EXTRA: make a virtual environment with Runout and what EXTRA asks for in it.
# With uv where it is there, else venv and pip; says in one line what the machine lacks.
set -eu
venv=$1 extra=$2

fail() { echo "runout: $1" >&2; exit 1; }

python=
for name in python3.13 python3.12 python3.11 python3 python3.14 python; do
  # Asked, not looked for: a version manager's shim may be there for a version that is not.
  if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.maxsize < 2**32)' 2>/dev/null; then
    python=$name
    break
  fi
done
[ -n "$python" ] || fail "needs a 64-bit Python 3.11 or later: apt install python3 python3-venv, or install uv"

echo "setting up $venv with $("$python" --version) (once; a minute or two) ..."
if command -v uv >/dev/null 2>&1; then
  [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv" || fail "uv venv failed"
  uv pip install --quiet --compile-bytecode --python "$venv/bin/python" -e ".[$extra]" \
    || fail "uv could not install the packages: is there a network?"
else
  if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    "$python" -m venv "$venv" 2>/dev/null \
      || fail "$python cannot make a virtual environment: apt install python3-venv, or install uv"
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$extra]" \
    || fail "pip could not install the packages: is there a network?"
fi
: >"$venv/.$extra"
# What development needs holds all that the demonstration does.
[ "$extra" != dev ] || : >"$venv/.demo"
