# shellcheck shell=bash
# Private servers on loopback: Redis, MariaDB, MySQL. Each function takes a name for the process, a folder for its data
# and a port; needs processes.sh.

# start_redis NAME FOLDER PORT: with the durability InsightForge ships.
start_redis() {
  local name=$1 folder=$2 port=$3
  mkdir -p "$folder"
  start "$name" "$folder/redis.log" redis-server \
    --port "$port" --bind 127.0.0.1 --dir "$folder" --daemonize no \
    --appendonly yes --appendfsync always --no-appendfsync-on-rewrite no --save '' \
    --maxmemory-policy noeviction \
    --stream-node-max-bytes 16384 --stream-node-max-entries 32 --hash-max-listpack-value 1024
  # PING answers LOADING with status 0 too; only PONG means that the journal is in memory again.
  await "$name" 60 redis_pongs "$port"
}

redis_pongs() {
  [[ $(redis-cli -h 127.0.0.1 -p "$1" ping 2>/dev/null) == PONG ]]
}

# start_mariadb NAME FOLDER PORT ROOT: ROOT says who is root, once and for all: `normal` everybody on this machine
# without a password, `socket` the user who made it, through the socket. Sets mariadb_socket.
start_mariadb() {
  local name=$1 folder=$2 port=$3 root=$4 user
  user=$(id -un)
  mkdir -p "$folder"
  mariadb_socket=$(socket_path "$folder" mariadb)
  if [[ ! -e $folder/data.complete ]]; then
    rm -rf "$folder/data"
    # Forced: it must not depend on the name of this machine being known to it.
    mariadb-install-db --no-defaults --force --user="$user" --datadir="$folder/data" --skip-test-db \
      --auth-root-authentication-method="$root" --auth-root-socket-user="$user" >"$folder/install.log" 2>&1 \
      || { complain "mariadb-install-db failed:" && show_end "$folder/install.log"; return 1; }
    touch "$folder/data.complete"
  fi
  start "$name" "$folder/mariadb.log" mariadbd --no-defaults --user="$user" --datadir="$folder/data" \
    --port="$port" --bind-address=127.0.0.1 --socket="$mariadb_socket" --pid-file="$folder/mariadb.pid" \
    --skip-name-resolve --innodb-flush-log-at-trx-commit=1 \
    --innodb-buffer-pool-size="${MARIADB_BUFFER_POOL:-128M}" --innodb-log-file-size=256M --max-connections=400
  await "$name" 60 mariadb --no-defaults --socket="$mariadb_socket" --user="$user" --execute='SELECT 1'
}

# start_mysql NAME FOLDER PORT ROOT: a MySQL whose files lie under ROOT (see extract_mysql); root has no password.
start_mysql() {
  local name=$1 folder=$2 port=$3 root=$4 program server client
  mkdir -p "$folder"
  program_of "$root" sbin/mysqld
  server=(
    "${program[@]}" --no-defaults --user="$(id -un)" --datadir="$folder/data" --secure-file-priv=
    --lc-messages-dir="$root/usr/share/mysql" --character-sets-dir="$root/usr/share/mysql/charsets"
    --plugin-dir="$root/usr/lib/mysql/plugin"
  )
  if [[ ! -e $folder/data.complete ]]; then
    rm -rf "$folder/data"
    # One statement a line. Names of hosts are not resolved: root@localhost alone would let nobody in over TCP.
    printf '%s\n' "CREATE USER root@'127.0.0.1';" "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;" \
      >"$folder/init.sql"
    "${server[@]}" --initialize-insecure --init-file="$folder/init.sql" >"$folder/install.log" 2>&1 \
      || { complain "mysqld --initialize-insecure failed:" && show_end "$folder/install.log"; return 1; }
    touch "$folder/data.complete"
  fi
  start "$name" "$folder/mysql.log" "${server[@]}" \
    --port="$port" --bind-address=127.0.0.1 --socket="$(socket_path "$folder" mysql)" --pid-file="$folder/mysql.pid" \
    --mysqlx=OFF --skip-log-bin --skip-name-resolve --performance-schema=OFF \
    --innodb-flush-log-at-trx-commit=1 --innodb-buffer-pool-size=64M --max-connections=400
  program_of "$root" bin/mysql
  client=("${program[@]}" --no-defaults --host=127.0.0.1 --port="$port" --user=root)
  await "$name" 90 "${client[@]}" --execute='SELECT 1'
}

# program_of ROOT PROGRAM: sets `program` to a command that runs ROOT/usr/PROGRAM through the loader of that same
# system: it wants a newer C library than this one has.
program_of() {
  local root=$1 libraries
  libraries=$root/usr/lib/$(uname -m)-linux-gnu
  program=("$libraries/$(loader_name)" --library-path "$libraries:$root/usr/lib/mysql/private"
    --argv0 "$(basename "$2")" "$root/usr/$2")
}

# extract_mysql ROOT: MySQL from Debian's newest suite, unpacked beside the system and not installed into it.
extract_mysql() {
  local root=$1
  [[ -e $root/.complete ]] && return
  rm -rf "$root"
  # The mirror may be a snapshot whose release file has expired; signatures are still checked.
  mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
    --include=mysql-server-core,mysql-client-core sid "$root" "$(debian_mirror)" || return 1
  touch "$root/.complete"
}

debian_mirror() {
  # shellcheck disable=SC2016 # apt fills $(SITE) in
  apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/*$' \
    || echo http://deb.debian.org/debian
}

loader_name() {
  case $(uname -m) in
    x86_64) echo ld-linux-x86-64.so.2 ;;
    aarch64) echo ld-linux-aarch64.so.1 ;;
    *) die "no MySQL is known for the processor $(uname -m)" ;;
  esac
}

# socket_path FOLDER NAME: a socket's path may have 107 bytes; a deep folder gets one under /tmp.
socket_path() {
  local path=$1/$2.sock
  if ((${#path} > 100)); then
    path=/tmp/insightforge-$(cksum <<<"$path" | cut -d ' ' -f 1).sock
  fi
  echo "$path"
}
