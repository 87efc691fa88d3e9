#!/usr/bin/env bash
# MLflow's tracking server on PostgreSQL, with artifacts passed on by the server. Everything that it keeps lies in one folder.
#
#   bash scripts/tracking_server.sh start     and prints MLFLOW_TRACKING_URI=...
#   bash scripts/tracking_server.sh status
#   bash scripts/tracking_server.sh stop      and leaves the data
#
# In the folder: database/ (of PostgreSQL: its data, socket and log), artifacts/, server.log, and what this script remembers.
set -euo pipefail
shopt -s nullglob
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

START_SECONDS=300  # a server on a busy machine, with its tables to make
STOP_SECONDS=20    # then it is killed

usage() {
  cat <<'EOF'
Usage: bash scripts/tracking_server.sh start|stop|status [options] [-- options of mlflow server]

  --folder DIR     where database, artifacts and logs are (default: data/tracking in this project)
  --host ADDRESS   start: what the server listens on (default: 127.0.0.1); it has no authentication of its own
  --port N         start: its port (default: 5000)
  --workers N      start: processes that answer requests (default: 1)
  --install        start: install what is missing, PostgreSQL by apt-get and psycopg by pip
  -h, --help       this text

start   starts what does not run of database and server, waits until the server answers, and prints MLFLOW_TRACKING_URI=...
stop    ends the server, then the database; the data stay, and the next start goes on with them
status  says what runs, and prints MLFLOW_TRACKING_URI=... where both do

The database listens on a socket in the folder, and on no port. It lets in the user of this system who made it, without a
password. For root, PostgreSQL runs as the user postgres.

Environment variables:
  PYTHON=/path/to/python     the interpreter that has mlflow and psycopg (default: .venv of this project, then python3)
  POSTGRESQL_BIN=/a/folder   the one of initdb, pg_ctl and psql (default: the one on PATH, then the newest in /usr/lib/postgresql)

Exit code: 0 it is so; 1 an error; 2 wrong arguments; 3 status: not all of it runs.
EOF
}

say() { printf 'tracking_server: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

wrong() {
  say "$* (--help says what there is)"
  exit 2
}

# --- Arguments -----------------------------------------------------------------------------------------------------------------

action='' folder=$root/data/tracking host=127.0.0.1 port=5000 workers=1 install='' given=''
server_options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --)
      shift
      server_options=("$@")
      break
      ;;
    --folder | --host | --port | --workers)
      [ $# -gt 1 ] && [ -n "$2" ] || wrong "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      [ "$1" != --host ] && [ "$1" != --port ] || given=yes
      shift
      ;;
    --install) install=yes ;;
    start | stop | status)
      [ -z "$action" ] || wrong "$action or $1, not both"
      action=$1
      ;;
    *) wrong "unknown argument $1" ;;
  esac
  shift
done
[ -n "$action" ] || wrong "start, stop or status?"
[[ $port =~ ^[1-9][0-9]{0,4}$ ]] && [ "$port" -le 65535 ] || wrong "--port is a number from 1 to 65535, not $port"
[[ $workers =~ ^[1-9][0-9]{0,2}$ ]] || wrong "--workers is a number from 1 on, not $workers"

for program in flock setsid; do
  command -v "$program" >/dev/null || die "$program is missing, which is in util-linux; this script runs on Linux"
done

# --- Python and PostgreSQL -----------------------------------------------------------------------------------------------------

find_python() {
  python=${PYTHON:-}
  [ -n "$python" ] || { python=$root/.venv/bin/python && [ -x "$python" ]; } || python=python3
  command -v "$python" >/dev/null || die "there is no $python; run: bash scripts/setup.sh"
}

# Sets bin to the folder of PostgreSQL's programs: those of the version that made the data, where there are data.
find_postgresql() {
  local made='' found candidates=()
  [ ! -r "$data/PG_VERSION" ] || made=$(cat "$data/PG_VERSION")
  [ -z "$made" ] || candidates=("/usr/lib/postgresql/$made/bin" "/usr/pgsql-$made/bin")
  if found=$(command -v initdb); then candidates+=("$(dirname "$(readlink -f "$found")")"); fi
  mapfile -t -O ${#candidates[@]} candidates < <(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV)
  [ -z "${POSTGRESQL_BIN:-}" ] || candidates=("$POSTGRESQL_BIN")
  for bin in "${candidates[@]}"; do
    [ -x "$bin/initdb" ] && [ -x "$bin/pg_ctl" ] && [ -x "$bin/psql" ] && break
    bin=''
  done
  [ -n "$bin" ] || return 1
  found=$("$bin/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
  [ -z "$made" ] || [ "$found" = "$made" ] ||
    die "$data was made by PostgreSQL $made, and $bin is of $found; install postgresql-$made, or set POSTGRESQL_BIN"
}

install_postgresql() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    die "--install needs root, and Debian or Ubuntu; install PostgreSQL with the package manager of this system"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql; } >&2 ||
    die "apt-get could not install postgresql, see above"
}

require_programs() {
  if ! find_postgresql; then
    [ -n "$install" ] ||
      die "PostgreSQL is missing; run: apt-get install postgresql (or start with --install), or set POSTGRESQL_BIN"
    install_postgresql
    find_postgresql || die "PostgreSQL is installed, but initdb is not found; set POSTGRESQL_BIN"
  fi
  "$python" -c 'import importlib.util as util, sys; sys.exit(util.find_spec("mlflow") is None)' ||
    die "$python has no mlflow; run: bash scripts/setup.sh, or set PYTHON"
  if ! "$python" -c 'import psycopg' 2>/dev/null; then
    [ -n "$install" ] ||
      die "psycopg is missing; run: pip install 'mian[postgresql]' (or start with --install). The interpreter is $python"
    "$python" -m pip install -c "$root/constraints.txt" 'psycopg[binary]' >&2 || die "pip could not install psycopg, see above"
  fi
}

# Run a program of PostgreSQL, which refuses to be root.
as_owner() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# --- Database ------------------------------------------------------------------------------------------------------------------

# The folder is one that PostgreSQL's user can enter, with a path that the name of a socket has room for.
make_folders() {
  local socket=$database/.s.PGSQL.5432 owner
  mkdir -p "$database" "$folder/artifacts" || die "$folder cannot be made; give another --folder"
  [ "$(LC_ALL=C; echo ${#socket})" -le 107 ] ||
    die "$folder: the path is too long for that of a socket; give a --folder of fewer characters"
  [ "$(id -u)" != 0 ] || id postgres >/dev/null 2>&1 ||
    die "there is no user postgres, as which PostgreSQL is to run; start as another user than root"
  owner=$(stat -c %U "$data" 2>/dev/null || stat -c %U "$database")
  [ "$owner" = "$(as_owner id -un)" ] || { [ "$(id -u)" = 0 ] && [ ! -e "$data" ]; } ||
    die "$database is the user $owner's; start as the user who made it, or give another --folder"
  [ "$(id -u)" != 0 ] || chown postgres: "$database"
  chmod 700 "$database"
  as_owner test -w "$database" ||
    die "the user postgres, as which PostgreSQL runs for root, cannot enter $folder; give another --folder, or let others" \
      "pass through those above it (chmod o+x)"
}

# Made under another name first: what was cut short is made again.
make_database() {
  local new=$data.part log
  as_owner rm -rf "$new"
  say "making the database in $database"
  log=$(as_owner "$bin/initdb" -D "$new" -U mlflow -A peer -E UTF8 --locale=C 2>&1) || die "initdb failed: $log"
  as_owner tee "$new/pg_hba.conf" >/dev/null <<<'local all mlflow peer map=tracking'
  as_owner tee "$new/pg_ident.conf" >/dev/null <<EOF
tracking "$(id -un)" mlflow
tracking "$(as_owner id -un)" mlflow
EOF
  as_owner mv "$new" "$data"
}

database_runs() { as_owner "$bin/pg_ctl" -D "$data" status >/dev/null 2>&1; }

# It listens on a socket alone, in .. as the database sees it. What a killed one left in memory may take a second to go.
start_database() {
  local attempt
  say "starting the database"
  for attempt in 1 2 3; do
    as_owner "$bin/pg_ctl" -D "$data" -l "$database/log.txt" -o "-c listen_addresses= -c unix_socket_directories=.." \
      -t "$START_SECONDS" -w start >/dev/null 2>&1 9>&- </dev/null && return
    sleep "$attempt"
  done
  die "the database does not start: $(as_owner tail -n 5 "$database/log.txt")"
}

sql() { "$bin/psql" -h "$database" -U mlflow -d "$1" -XAtqc "$2"; }

# It may still be starting, for an earlier start that was cut short.
open_database() {
  local end=$((SECONDS + START_SECONDS))
  database_runs || start_database
  until sql postgres 'select 1' >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] && database_runs || die "the database does not answer: $(sql postgres 'select 1' 2>&1)"
    sleep 0.2
  done
  [ -n "$(sql postgres "select 1 from pg_database where datname = 'mlflow'")" ] || sql postgres 'create database mlflow'
}

# --- Server --------------------------------------------------------------------------------------------------------------------

# A server holds a lock as long as one of its processes lives: a process id alone may be another program's by now.
server_runs() { [ -e "$lock" ] && ! flock -n -s "$lock" true; }

address() { cat "$folder/server.address" 2>/dev/null || echo "$host $port"; }

# The address as a client of this machine has it.
client_host() {
  case $1 in
    0.0.0.0) echo 127.0.0.1 ;;
    ::) echo '[::1]' ;;
    *:*) echo "[$1]" ;;
    *) echo "$1" ;;
  esac
}

uri() {
  local host port
  read -r host port <<<"$(address)"
  echo "http://$(client_host "$host"):$port"
}

answers() {
  "$python" - "$(uri)" 2>/dev/null <<'EOF'
import http.client, sys, urllib.parse
address = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
connection.request("GET", "/health")
sys.exit(connection.getresponse().status != 200)
EOF
}

# answers_within SECONDS: whether the server answers in that time; where its processes have ended, nobody waits.
answers_within() {
  local end=$((SECONDS + $1))
  until answers; do
    [ $SECONDS -lt $end ] && server_runs || return 1
    sleep 0.2
  done
}

port_is_taken() {
  "$python" - "$host" "$port" <<'EOF'
import socket, sys
try:
    family, kind, protocol, _, address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
except OSError as error:
    print(error.strerror or error)
    sys.exit(0)
sys.exit(1)
EOF
}

# In a process group of its own, which holds the lock; the first process writes its id before it becomes the server.
start_server() {
  local taken
  if taken=$(port_is_taken); then die "the server cannot listen on $host, port $port ($taken); give another --port or --host"; fi
  say "starting the server"
  rm -f "$folder/server.pid"
  printf '%s %s\n' "$host" "$port" >"$folder/server.address"
  # PGHOST rather than the URI has the socket's place: the path of a folder would have to be escaped there.
  PGHOST=$database MLFLOW_SERVER_ENABLE_JOB_EXECUTION=${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false} setsid --fork bash -c '
    cd "$1" && exec 8>>server.lock && flock -w 10 8 || exit 1
    echo $$ >server.pid.part && mv server.pid.part server.pid
    exec "${@:2}"' bash "$folder" "$python" -m mlflow server --host "$host" --port "$port" --workers "$workers" \
    --backend-store-uri postgresql+psycopg://mlflow@/mlflow --artifacts-destination "$folder/artifacts" \
    ${server_options[@]+"${server_options[@]}"} >>"$folder/server.log" 2>&1 </dev/null 9>&-
  local end=$((SECONDS + 10))
  until server_runs || [ $SECONDS -ge $end ]; do sleep 0.1; done
}

stop_server() {
  local group end=$((SECONDS + STOP_SECONDS)) signal=TERM
  server_runs || return 0
  say "stopping the server"
  while server_runs; do
    group=$(cat "$folder/server.pid" 2>/dev/null || true)  # it writes it when it has the lock
    [ -z "$group" ] || kill -s $signal -- "-$group" 2>/dev/null || ! server_runs ||
      die "the server, process group $group, cannot be ended; it is another user's"
    [ $SECONDS -lt $end ] || signal=KILL
    sleep 0.2
  done
  rm -f "$folder/server.pid" "$folder/server.address"
}

# --- Actions -------------------------------------------------------------------------------------------------------------------

start() {
  local host_before port_before
  require_programs
  if server_runs && database_runs && answers; then
    read -r host_before port_before <<<"$(address)"
    [ -z "$given" ] || [ "$host $port" = "$host_before $port_before" ] ||
      die "it runs already, at $(uri); stop it first to give it another address"
    say "it runs already"
    echo "MLFLOW_TRACKING_URI=$(uri)"
    return
  fi
  make_folders
  as_owner test -d "$data" || make_database
  open_database
  server_runs || start_server
  answers_within "$START_SECONDS" ||
    die "the server does not answer at $(uri); the end of $folder/server.log: $(tail -n 5 "$folder/server.log")"
  echo "MLFLOW_TRACKING_URI=$(uri)"
}

stop() {
  [ -d "$folder" ] || die "there is no $folder; --folder names the one that it was started with"
  stop_server
  if [ -e "$data/PG_VERSION" ] && database_runs; then
    say "stopping the database"
    as_owner "$bin/pg_ctl" -D "$data" -m fast -w -t 120 stop >/dev/null || die "the database does not stop, see $database/log.txt"
  fi
  say "stopped; the data are in $folder"
}

status() {
  local server='does not run' base='does not run'
  [ ! -e "$data/PG_VERSION" ] || ! database_runs || base='runs'
  if server_runs; then
    server='runs, but does not answer'
    ! answers || server='runs'
  fi
  say "database: $base; server: $server; folder: $folder"
  [ "$base $server" = 'runs runs' ] || return 3
  echo "MLFLOW_TRACKING_URI=$(uri)"
}

unset "${!PG@}"  # a service, port or options of another database
if [ "$action" = start ]; then mkdir -p "$folder" || die "$folder cannot be made; give another --folder"; fi
[ ! -d "$folder" ] || folder=$(cd "$folder" && pwd -P)
database=$folder/database data=$folder/database/data lock=$folder/server.lock
find_python
if [ "$action" != start ]; then find_postgresql || die "PostgreSQL is missing; set POSTGRESQL_BIN"; fi
if [ "$action" != status ] && [ -d "$folder" ]; then
  exec 9>>"$folder/script.lock"  # held on by initdb, too, where this script is killed
  flock 9
fi
{ "$action"; exit; }  # in one piece: the file may be another one by then
