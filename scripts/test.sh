#!/usr/bin/env bash
# Everything that must hold, from a fresh machine on: set-up, lint, format, types, documentation, tests. Arguments go to pytest.
#
#   bash scripts/test.sh
#   bash scripts/test.sh --long                       the long tests, too
#   bash scripts/test.sh tests/mian -k metrics -m unit
#   bash scripts/test.sh tests/mian --long            --long may stand at any place
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

markers=()
arguments=()
for argument in "$@"; do
  if [ "$argument" = --long ]; then
    markers=(-m '')
  else
    arguments+=("$argument")
  fi
done
typed=$(mktemp)
site=$(mktemp -d)
mypy=''
trap 'rm -rf "$typed" "$site"; [ -z "$mypy" ] || kill "$mypy" 2>/dev/null || true' EXIT
bash scripts/setup.sh
setup_seconds=$SECONDS
source scripts/env.sh
# The tests start many processes, and each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE

# All of them run, so that one run shows all there is to fix.
failed=''
check() {
  printf '\n== %s\n' "$1"
  "${@:2}" || failed+="${failed:+, }$1"
}

said_by_mypy() {
  local code=0
  wait "$mypy" || code=$?
  cat "$typed"
  return "$code"
}

check "ruff check" ruff check .
check "ruff format" ruff format --check .
# The variable silences a notice of the theme about a release of MkDocs that constraints.txt keeps out.
check "mkdocs build" env NO_MKDOCS_2_WARNING=1 mkdocs build --strict --site-dir "$site"
# While the first tests run: it takes one core, and half a minute.
mypy >"$typed" 2>&1 &
mypy=$!
# Two files at a time, in the order of tests/conftest.py: more would share cores and memory.
check "pytest" pytest -n 2 --dist loadfile --no-loadscope-reorder "${markers[@]}" "${arguments[@]}"
check "mypy" said_by_mypy

printf '\nIn all %d s, %d of them set-up.\n' "$SECONDS" "$setup_seconds"
[ -z "$failed" ] || { printf 'Not clean: %s.\n' "$failed"; exit 1; }
