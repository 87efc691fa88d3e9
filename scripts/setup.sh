#!/usr/bin/env bash
# Makes all that MIAN needs: system packages, .venv, PyTorch, Horovod, this project. Safe to run again; what is done is not done twice.
#
#   bash scripts/setup.sh
#
# Environment variables:
#   PYTHON=/path/to/python3.11   the interpreter to make .venv from (3.10 or 3.11)
#   CXX=g++-13                   the C++ compiler that builds Horovod
#   MIAN_CUDA=0                  builds Horovod for the CPU where there is CUDA
#   HOROVOD_NCCL_HOME=...        where NCCL's headers and libraries are, if not among the system's
#   XDG_CACHE_HOME=/a/folder     where the compiled Horovod is kept, in mian/wheels; ~/.cache otherwise
#   PIP_EXTRA_INDEX_URL=...      such as PyTorch's index of CPU wheels: without a GPU it spares a download of several GB
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
venv=$root/.venv
wheels=${XDG_CACHE_HOME:-${HOME:-$root}/.cache}/mian/wheels
log=$(mktemp)
groups=()  # of processes in the background
cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

stop_and_keep_log() {
  local group
  for group in ${groups[@]+"${groups[@]}"}; do kill -- "-$group" 2>/dev/null || true; done
  cat "$log".[ho]* >>"$log" 2>/dev/null || true
  rm -rf "$log".* "$wheels"/*.part.$$
  if [ -s "$log" ] && [ -d "$venv" ]; then mv "$log" "$venv/setup.log"; else rm -f "$log"; fi
}
trap stop_and_keep_log EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# step WHAT COMMAND...: one line on the screen, the output in the log, and its end on the screen if COMMAND fails.
step() {
  local what=$1 start=$SECONDS
  shift
  printf '%s ... ' "$what"
  printf '\n## %s\n' "$what" >>"$log"
  if "$@" >>"$log" 2>&1; then
    printf '%d s\n' $((SECONDS - start))
  else
    printf 'failed\n'
    tail -n 20 "$log" >&2
    [ ! -d "$venv" ] || printf 'setup: the whole log is in .venv/setup.log\n' >&2
    return 1
  fi
}

# --- What the system must have -------------------------------------------------------------------------------------------------

# Prints "complete|partial VERSION EXECUTABLE" for a Python 3.10 or 3.11. The executable is the one behind a venv, should one be active.
probe_python() {
  "$1" - 2>/dev/null <<'EOF'
import importlib.util, pathlib, sys, sysconfig
if not (3, 10) <= sys.version_info[:2] <= (3, 11):
    sys.exit(1)
headers = pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
complete = headers and importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")
print("complete" if complete else "partial", "%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))
EOF
}

# Sets python and python_version to the first complete interpreter, or python_version alone to that of an incomplete one.
find_python() {
  local candidate found state version executable candidates=(python3.11 python3.10 python3)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  python='' python_version=''
  for candidate in "${candidates[@]}"; do
    found=$(probe_python "$candidate") || continue
    read -r state version executable <<<"$found"
    [ -n "$python_version" ] || python_version=$version
    if [ "$state" = complete ]; then
      python=$executable python_version=$version
      return
    fi
  done
}

# Spark 4.0 runs on Java 17 to 23, and needs a module that cut-down runtimes leave out.
find_java() {
  local candidate found
  java_home=''
  for candidate in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} java /usr/lib/jvm/*/bin/java ${HOMEBREW_PREFIX:+"$HOMEBREW_PREFIX"/opt/openjdk@*/bin/java}; do
    found=$("$candidate" -XshowSettings:properties --list-modules 2>&1) || continue
    if grep -Eq '^jdk\.incubator\.vector@(1[7-9]|2[0-3])([.+-]|$)' <<<"$found"; then
      java_home=$(sed -nE 's/^ *java\.home = //p' <<<"$found")
      return
    fi
  done
}

compiles_cxx20() {
  "${CXX:-g++}" -std=gnu++20 -x c++ -fsyntax-only - 2>/dev/null <<<'#include <concepts>'
}

fitting_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -nE '1s/.* ([0-9]+\.[0-9]+).*/\1/p')
  [ -n "$version" ] && [ "$(printf '%s\n' 3.13 "$version" | sort -V | head -n 1)" = 3.13 ]
}

# Fills missing with words for people and needs with keys for package_names.
look_for_missing() {
  missing=() needs=()
  find_python
  find_java
  [ -n "$python" ] || { missing+=("Python 3.10 or 3.11 with venv and headers"); needs+=(python); }
  [ -n "$java_home" ] || { missing+=("a full Java runtime, 17 to 23"); needs+=(java); }
  compiles_cxx20 || { missing+=("a C++20 compiler"); needs+=(compiler); }
  fitting_cmake || { missing+=("CMake 3.13 or later"); needs+=(cmake); }
  command -v make >/dev/null || { missing+=("make"); needs+=(make); }
}

# The first of the packages that apt could install.
apt_first() {
  local name
  for name in "$@"; do
    if apt-cache policy "$name" 2>/dev/null | grep -Eq 'Candidate: [0-9]'; then
      echo "$name"
      return
    fi
  done
  echo "$1"
}

# package_names MANAGER NEED...: the packages that meet the needs.
package_names() {
  local manager=$1 need version
  shift
  for need in "$@"; do
    case $manager-$need in
      apt-python)
        version=${python_version:-$(apt_first python3.11 python3.10)}
        version=${version#python}
        echo "python$version python$version-venv python$version-dev"
        ;;
      apt-java) apt_first openjdk-17-jre-headless openjdk-21-jre-headless ;;
      apt-compiler) echo g++ ;;
      dnf-python) echo "python${python_version:-3.11} python${python_version:-3.11}-devel" ;;
      dnf-java) echo java-21-openjdk-headless ;;
      dnf-compiler) echo gcc-c++ ;;
      brew-python) echo "python@${python_version:-3.11}" ;;
      brew-java) echo openjdk@17 ;;
      brew-compiler | brew-make) ;; # with Apple's command line tools
      *-cmake | *-make) echo "$need" ;;
    esac
  done | tr '\n' ' ' | sed 's/ $//'
}

list_missing() {
  local IFS=';'
  printf '%s' "${missing[*]}" | sed 's/;/; /g'
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

install_system_packages() {
  local names hint failed=''
  if [ -n "${PYTHON:-}" ] && [ -z "$python" ]; then
    die "PYTHON=$PYTHON is not a Python 3.10 or 3.11 with venv and headers (Python.h)"
  fi
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    step "apt-get update" apt-get update -q
    read -ra names <<<"$(package_names apt "${needs[@]}")"
    step "apt-get install ${names[*]}" apt_install "${names[@]}" || failed=yes
    look_for_missing
    [ ${#missing[@]} -gt 0 ] || return 0
    hint='apt has no fitting package for it. To use your own Python, set PYTHON=/path/to/python3.11; for Java, set JAVA_HOME.'
    [ -z "$failed" ] || hint='apt-get install failed, see above; check the network, or wait for another apt-get, and run this again.'
  elif command -v apt-get >/dev/null; then
    hint="Install with: sudo apt-get update && sudo apt-get install -y --no-install-recommends $(package_names apt "${needs[@]}")"
  elif command -v dnf >/dev/null; then
    hint="Install with: sudo dnf install -y $(package_names dnf "${needs[@]}")"
  elif command -v brew >/dev/null; then
    hint="Install with: brew install $(package_names brew "${needs[@]}"); compiler and make: xcode-select --install"
  else
    hint='Install with the package manager of this system.'
  fi
  die "missing: $(list_missing). $hint"
}

# nvcc builds Horovod's kernels; a driver that lists a GPU says that they could run.
has_cuda() {
  [ "${MIAN_CUDA:-1}" != 0 ] && command -v nvcc >/dev/null && nvidia-smi -L 2>/dev/null | grep GPU >/dev/null
}

# --- What goes into .venv ------------------------------------------------------------------------------------------------------

# What .venv depends on, in one word: when it differs from the one in .venv/set-up, there is work to do.
fingerprint() {
  "$python" - "$root" "$cuda" constraints.txt setup.cfg setup.py pyproject.toml mian/kernels/*.cpp mian/kernels/*.h scripts/setup.sh scripts/cxx20.sh <<'EOF'
import hashlib, pathlib, sys
parts = [sys.version, sys.base_prefix, *sys.argv[1:3], *(pathlib.Path(name).read_text() for name in sys.argv[3:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
EOF
}

# Is .venv whole, made from this interpreter, and made here (its scripts hold its path)?
venv_fits() {
  local same='import sys; print(sys.version, sys.base_prefix)'
  [ ! -e "$venv/unfinished" ] && grep -qF "$venv" "$venv/bin/activate" 2>/dev/null &&
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && [ "$("$venv/bin/python" -c "$same")" = "$("$python" -c "$same")" ]
}

# Python compiles what is imported when it is, see compile_modules; pip would compile some 17,000 files.
pip_install() {
  "$venv/bin/python" -m pip install --no-input --no-compile -c constraints.txt "$@"
}

# Names what a built Horovod depends on; a wheel in the cache fits if all of this is the same.
horovod_key() {
  "$venv/bin/python" - "$1" <<'EOF'
import platform, re, sys, torch
horovod = re.search(r"^horovod==(\S+)", open("constraints.txt").read(), re.M).group(1)
parts = ["horovod", horovod, "torch", torch.__version__, "cp%d%d" % sys.version_info[:2], sys.argv[1], platform.system().lower()]
print("-".join([*parts, platform.machine(), *filter(None, platform.libc_ver())]))
EOF
}

build_horovod() {
  local operations=$1 folder=$2
  # CMake 4 refuses files as old as Horovod's unless told; one compiler a core, as each takes over 1 GB.
  env HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    HOROVOD_CPU_OPERATIONS=GLOO ${operations:+HOROVOD_GPU_OPERATIONS="$operations"} HOROVOD_NCCL_LINK="${HOROVOD_NCCL_LINK:-SHARED}" \
    MIAN_CXX="${CXX:-g++}" CXX="$root/scripts/cxx20.sh" CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="${MAKEFLAGS:--j$cores}" \
    "$venv/bin/python" -m pip wheel --no-input --no-deps --no-build-isolation --no-cache-dir --no-binary horovod \
    -c constraints.txt -w "$folder.part.$$" horovod &&
    rm -rf "$folder" && mv "$folder.part.$$" "$folder"
}

install_horovod_wheel() {
  pip_install --no-deps --force-reinstall "$1"/horovod-*.whl &&
    "$venv/bin/python" -c 'import horovod.torch as hvd; assert hvd.gloo_built()'
}

# What setup.cfg says that this project needs, its servers, its export and its tests; Horovod comes by itself.
requirements() {
  "$venv/bin/python" - <<'EOF'
import configparser
said = configparser.ConfigParser()
said.read("setup.cfg")
said = "\n".join([said["options"]["install_requires"], *(said["options.extras_require"][extra] for extra in ("serving", "postgresql", "export", "test"))])
print(*(line for line in said.splitlines() if not line.startswith("horovod")), sep="\n")
EOF
}

# The project's kernels are compiled while all else is downloaded and unpacked.
install_all() {
  local project
  # Without isolation, so that the build tools are the pinned ones too.
  pip_install --no-build-isolation --no-deps -e . &
  project=$!
  if ! requirements | pip_install -r /dev/stdin; then
    kill "$project" || true
    wait "$project" || true
    return 1
  fi
  compile_modules mlflow.pyfunc mlflow.pytorch petastorm pyspark.sql sklearn.linear_model jobs.build_samples || true  # meanwhile; check_venv says what is wrong
  wait "$project"
}

# compile_modules NAME...: imports them, which compiles them and all that they import, and keeps that.
compile_modules() {
  env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -c "import $(sed 's/ /, /g' <<<"$*")"
}

# Takes Horovod from the cache of wheels, or compiles it, and installs all else meanwhile.
install_horovod_and_all_else() {
  local operations='' key folder
  if [ "$cuda" = yes ]; then
    if "$venv/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>>"$log"; then
      operations=NCCL
    else
      echo "note: there is a GPU, but this torch cannot use it; Horovod is built for the CPU"
    fi
  fi
  key=$(horovod_key "${operations:-gloo}")
  folder=$wheels/$key
  if [ "$(cat "$venv/horovod-key" 2>/dev/null)" = "$key" ]; then
    step "MIAN and all else" install_all
    return
  fi
  if compgen -G "$folder/horovod-*.whl" >/dev/null && install_horovod_wheel "$folder" >>"$log" 2>&1; then
    echo "Horovod (${operations:-Gloo}), from $folder"
    step "MIAN and all else" install_all
  else
    if [ -e "$folder" ]; then echo "note: the wheel in $folder cannot be installed; it is built again"; fi
    build_while_installing "$operations" "$folder"
    step "Horovod into .venv" install_horovod_wheel "$folder"
  fi
  printf '%s\n' "$key" >"$venv/horovod-key"
}

# Each has a process group of its own, which the end of this script stops. Where one fails, the other is not waited for.
build_while_installing() {
  local operations=$1 folder=$2 horovod others
  set -m
  build_horovod "$operations" "$folder" >"$log.horovod" 2>&1 &
  horovod=$!
  { install_all || { touch "$log.failed"; kill -- "-$horovod" 2>/dev/null; exit 1; }; } >"$log.others" 2>&1 &
  others=$!
  set +m
  groups=("$horovod" "$others")
  if ! step "Horovod (${operations:-Gloo}), compiled from source while all else is installed: a few minutes" \
    finish "$horovod" "$log.horovod"; then
    [ -e "$log.failed" ] || [ -z "$operations" ] ||
      die "NCCL's headers and libnccl.so are needed, HOROVOD_NCCL_HOME says where; MIAN_CUDA=0 does without"
    [ -e "$log.failed" ] || exit 1
  fi
  step "MIAN and all else" finish "$others" "$log.others"
  groups=()
}

# finish PROCESS LOG: waits for a process in the background, and gives what it said.
finish() {
  local status=0
  wait "$1" || status=$?
  cat "$2"
  rm "$2"
  return "$status"
}

check_venv() {
  compile_modules horovod.torch jobs.build_samples jobs.evaluate jobs.train &
  "$venv/bin/python" -m pip check && wait $!
}

stop_if_up_to_date() {
  if [ -n "$python" ] && [ -n "$java_home" ] && [ -f "$venv/set-up" ] && [ "$(fingerprint)" = "$(cat "$venv/set-up")" ]; then
    printf '%s\n' "$java_home" >"$venv/java-home"
    echo "set-up is up to date: .venv, Python $python_version"
    exit 0
  fi
}

# --- The steps -----------------------------------------------------------------------------------------------------------------

find_python
find_java
if has_cuda; then cuda=yes; else cuda=no; fi
stop_if_up_to_date
if command -v flock >/dev/null; then
  exec 9>"$root/.venv.lock"
  flock -n 9 || { echo "another set-up runs in this folder; waiting for its end" && flock 9 && stop_if_up_to_date; }
fi

start=$SECONDS
mkdir -p "$wheels" || die "$wheels cannot be made, and the compiled Horovod is kept there; set XDG_CACHE_HOME to a folder that can be written"
look_for_missing
[ ${#missing[@]} -eq 0 ] || install_system_packages

if ! venv_fits; then
  if [ -e "$venv" ]; then echo "note: .venv is unfinished, or of another Python or place; it is made anew"; fi
  step ".venv, from Python $python_version at $python" "$python" -m venv --clear "$venv"
  if [ "$cuda" = no ] && [ "$(uname)" = Linux ] && ! "$venv/bin/python" -m pip config list | grep -E 'index-url|find-links' >/dev/null; then
    echo "note: no GPU here, and PyPI's torch brings CUDA, several GB. To spare them: PIP_EXTRA_INDEX_URL=<PyTorch's CPU index>"
  fi
fi
# A set-up that is cut short leaves this behind, and the next one starts with an empty .venv.
touch "$venv/unfinished"
rm -f "$venv/set-up"
printf '%s\n' "$java_home" >"$venv/java-home"

step "pip and build tools" pip_install pip setuptools wheel
step "PyTorch" pip_install torch numpy packaging cloudpickle psutil PyYAML
install_horovod_and_all_else
step "check" check_venv
if ! "$venv/bin/python" -c 'import sys; from mian.kernels import is_compiled; sys.exit(not is_compiled())' 2>>"$log"; then
  echo "note: mian/kernels was not compiled (.venv/setup.log says why); torch's own operators do, slower"
fi

fingerprint >"$venv/set-up"
rm "$venv/unfinished"
if ! "$python" -c 'import socket; socket.gethostbyname(socket.gethostname())' 2>/dev/null; then
  echo "note: this machine's name does not resolve, at which Horovod's ranks crash. Add to /etc/hosts: 127.0.1.1 $(uname -n)"
fi
echo "set-up is done: $((SECONDS - start)) s. For a shell of your own: source scripts/env.sh"
