#!/bin/bash
# As much of the official image's entry point as docker-compose.yml needs: prepares a new data directory on the socket
# alone, sources what lies in /docker-entrypoint-initdb.d, and becomes the server.

set -euo pipefail

data=/var/lib/mysql
run=/var/run/mysqld

without_password() {
  mysql --protocol=socket --socket="$run/mysqld.sock" --user=root "$@"
}

prepare() {
  local script server
  mysqld "$@" --initialize-insecure
  mysqld "$@" --skip-networking --socket="$run/mysqld.sock" --pid-file="$run/mysqld.pid" &
  server=$!
  until without_password --execute='SELECT 1' >/dev/null 2>&1; do
    kill -0 $server
    sleep 0.2
  done
  without_password <<SQL
CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';
ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
SQL
  for script in /docker-entrypoint-initdb.d/*.sh; do
    # shellcheck disable=SC1090
    . "$script"
  done
  kill $server
  wait $server
}

[[ -d $data/mysql ]] || prepare "$@"
exec mysqld "$@" --skip-name-resolve --socket="$run/mysqld.sock" --pid-file="$run/mysqld.pid"
