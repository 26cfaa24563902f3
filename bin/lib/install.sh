# shellcheck shell=bash
# What a script needs and how it gets it: Rust must be there; packages come from apt. Needs processes.sh.

readonly rust_version=1.94

# need_packages COMMAND=PACKAGE…: installs the package of every command that is missing.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

install_packages() {
  local as_root=() said
  command -v apt-get >/dev/null || die "this machine has no apt; install what Debian calls: $*"
  if (($(id -u) != 0)); then
    command -v sudo >/dev/null || die "run as root: apt-get install $*"
    as_root=(sudo)
  fi
  say "installing $*"
  # shellcheck disable=SC2016 # the inner shell fills "$@" in
  said=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c '
    apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' sh "$@" 2>&1) \
    || die "apt-get could not install $*: $(tail -n 5 <<<"$said")"
}

need_rust() {
  local have
  command -v cargo >/dev/null || die "Rust is missing; install Rust $rust_version or later (https://rustup.rs)"
  have=$(cargo --version | cut -d ' ' -f 2)
  at_least "$have" "$rust_version" || die "Rust $have is too old; install $rust_version or later (rustup update)"
  # Rust links with the C compiler, and some crates hold C.
  cc -x c -o /dev/null - <<<'int main(void) { return 0; }' 2>/dev/null || install_packages gcc libc6-dev
}

need_redis() {
  local have
  need_packages redis-server=redis-server redis-cli=redis-tools
  have=$(redis-server --version | sed 's/.*v=\([0-9.]*\).*/\1/')
  at_least "$have" 7.0 || die "Redis $have is too old; 7.0 or later is needed (or set REDIS_URL to one)"
}

need_mariadb() {
  local have
  # Debian's programs for administrators stand in /usr/sbin, which an ordinary user's PATH may lack.
  PATH=$PATH:/usr/sbin:/sbin
  need_packages mariadbd=mariadb-server mariadb-install-db=mariadb-server mariadb=mariadb-client
  have=$(mariadbd --version | sed 's/.*Ver \([0-9.]*\).*/\1/')
  at_least "$have" 10.6 || die "MariaDB $have is too old; 10.6 or later is needed (or set DATABASE_URL to one)"
}

# at_least HAVE WANTED: compares versions number by number.
at_least() {
  [[ $(printf '%s\n' "$2" "$1" | sort --version-sort | head -n 1) == "$2" ]]
}

# target_folder: where cargo builds to, whatever decides it.
target_folder() {
  cargo metadata --format-version 1 --no-deps --offline 2>/dev/null \
    | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
