# shellcheck shell=bash
# To be sourced: `source scripts/env.sh` puts python, spark-submit, horovodrun and mlflow of .venv on PATH, set to run on one machine.
# setup.sh must have been run.

_mian_root=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)
_mian_venv=$_mian_root/.venv

if [ ! -f "$_mian_venv/set-up" ]; then
  echo "env.sh: there is no finished .venv; run: bash scripts/setup.sh" >&2
  return 1
fi

# shellcheck source=/dev/null
source "$_mian_venv/bin/activate"

JAVA_HOME=$(cat "$_mian_venv/java-home")
export JAVA_HOME

# Otherwise Spark's Python workers take whichever python3 comes first.
export PYSPARK_PYTHON=$_mian_venv/bin/python PYSPARK_DRIVER_PYTHON=$_mian_venv/bin/python

# Spark's settings for one machine: memory, and what it logs.
export SPARK_CONF_DIR=$_mian_root/conf/spark

# Otherwise Spark binds to the address that the host name resolves to, which may not be reachable (VPN, container).
export SPARK_LOCAL_IP=127.0.0.1

# Otherwise glibc keeps memory that one reading thread took and another gave back, apart for each of them.
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}

# Another Spark on this machine would be run in place of the pinned one.
unset SPARK_HOME _mian_root _mian_venv
