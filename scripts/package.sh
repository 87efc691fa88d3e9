#!/usr/bin/env bash
# Builds the library as a file that travels with a Spark job: spark-submit --py-files dist/mian-VERSION.zip. See docs/tutorials/cluster.md.
#
#   bash scripts/package.sh [FOLDER]     into FOLDER, dist/ by default; needs what setup.sh makes
#
# Beside the wheel lies the same file as .zip: a Spark that is not on YARN puts .zip, .egg and .jar on its Python workers' path, no .whl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${1:-dist}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

# From a copy: setuptools keeps what it built in build/, and would pack files from there that have since been removed.
tar -c --exclude=__pycache__ LICENSE README.md pyproject.toml setup.cfg jobs mian pipeline | tar -x -C "$copy"
.venv/bin/python -m pip wheel --quiet --no-input --no-deps --no-build-isolation --wheel-dir "$copy/dist" "$copy"

mkdir -p "$folder"
for wheel in "$copy"/dist/*.whl; do
  name=$(basename "$wheel")
  zip=${name%-py3-none-any.whl}.zip
  cp "$wheel" "$folder/$name"
  cp "$wheel" "$folder/$zip"
  echo "$folder/$zip"
done
