# shellcheck shell=bash
# Background processes: started, watched and ended by process id.
#
# Each runs in a session of its own, so Ctrl-C in the terminal reaches the script alone and the script decides the
# order of ending. The kernel ends them (SIGTERM) should the script itself be killed.

# Process ids by name, and the names in the order of their start.
declare -A pid_of=()
declare -A log_of=()
started=()

# start NAME LOG COMMAND…: runs COMMAND in the background, its output appended to LOG.
start() {
  local name=$1 log=$2
  shift 2
  setsid setpriv --pdeathsig TERM -- "$@" >>"$log" 2>&1 </dev/null &
  pid_of[$name]=$!
  log_of[$name]=$log
  started+=("$name")
}

alive() {
  kill -0 "${pid_of[$1]}" 2>/dev/null
}

# watch_started: returns when one of what was started has ended, with its name in `ended`. Not by `wait -n`, which never
# returns for a process that ended just before it was called.
watch_started() {
  local name nothing
  # Nobody sends anything to it, so reading is waiting, which a signal ends at once and no process is needed for.
  exec {nothing}<>/dev/udp/127.0.0.1/9
  while true; do
    for name in "${started[@]}"; do
      if ! alive "$name"; then
        exec {nothing}>&-
        # shellcheck disable=SC2034  # its callers read it
        ended=$name
        return
      fi
    done
    read -r -t 0.5 -u "$nothing" || true
  done
}

# await NAME SECONDS COMMAND…: until COMMAND succeeds; fails when NAME ends or SECONDS have passed.
await() {
  local name=$1 seconds=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then
      complain "$name ended before it was ready; its last lines (${log_of[$name]}):"
      show_end "${log_of[$name]}"
      return 1
    fi
    if ((SECONDS >= deadline)); then
      complain "$name was not ready within $seconds s; its last lines (${log_of[$name]}):"
      show_end "${log_of[$name]}"
      return 1
    fi
    sleep 0.1
  done
}

# show_end LOG: its last lines.
show_end() {
  tail -n 40 "$1" | sed 's/^/    /' >&2
}

# end SECONDS NAME…: SIGTERM to all of them at once, SIGKILL to what is left after SECONDS.
end() {
  local seconds=$1 name deadline
  shift
  for name in "$@"; do
    kill -TERM "${pid_of[$name]}" 2>/dev/null || true
  done
  deadline=$((SECONDS + seconds))
  for name in "$@"; do
    while alive "$name" && ((SECONDS < deadline)); do
      sleep 0.05
    done
    if alive "$name"; then
      complain "$name did not stop within $seconds s and is killed"
      kill -KILL "${pid_of[$name]}" 2>/dev/null || true
    fi
    wait "${pid_of[$name]}" 2>/dev/null || true
  done
}

# attend COMMAND…: runs it and waits. A signal to the script interrupts the waiting, and end_attended then ends the
# command with all it started: it has a process group of its own.
attend() {
  local status=0
  set -m
  "$@" </dev/null &
  set +m
  attended=$!
  wait "$attended" || status=$?
  attended=
  return "$status"
}
attended=

end_attended() {
  [[ -z $attended ]] || kill -TERM -- "-$attended" 2>/dev/null || true
}

# lock_folder FOLDER: one script a folder. What the script starts inherits the lock (descriptor 9): as long as a server
# of an earlier run is ending, nobody starts another on its files.
lock_folder() {
  local folder=$1 holder
  exec 9>>"$folder/lock"
  if ! flock --nonblock 9; then
    holder=$(cat "$folder/lock")
    if [[ -n $holder ]] && kill -0 "$holder" 2>/dev/null; then
      die "already running on $folder as process $holder; end that one first"
    fi
    say "waiting for processes of an earlier run to end"
    flock --timeout 30 9 || die "processes of an earlier run (as process $holder) still use $folder"
  fi
  echo $$ >"$folder/lock"
}

# ports_are_free FIRST COUNT: nobody on this machine listens on any of them.
ports_are_free() {
  local port
  for ((port = $1; port < $1 + $2; port++)); do
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 1
  done
}

# free_port FIRST: the first free port from FIRST on.
free_port() {
  local port=$1
  until ports_are_free "$port" 1; do
    port=$((port + 1))
  done
  echo "$port"
}

say() {
  printf '%s\n' "$*" >&2
}

complain() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
  complain "$*"
  exit 1
}
