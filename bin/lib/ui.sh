# shellcheck shell=bash
# The dashboard: api/ui, which Node builds into api/ui/dist. Needs processes.sh and install.sh.

readonly node_version=20.19

# build_ui: builds it unless it is built from these very sources; fails, and says why, where it cannot be had. The program
# can be built without it.
build_ui() {
  # shellcheck disable=SC2154 # set by whoever reads this file
  local ui=$repository/api/ui sources
  sources=$(cd "$ui" && find . -path ./node_modules -prune -o -path ./dist -prune -o -type f -print0 | sort -z | xargs -0 cksum | cksum)
  [[ ! -e $ui/dist/index.html || $(cat "$ui/node_modules/.built" 2>/dev/null) != "$sources" ]] || return 0
  has_node || return 1
  say "building the dashboard"
  attend npm ci --prefix "$ui" --silent --no-audit --no-fund || { complain "npm ci failed" && return 1; }
  attend npm run build --prefix "$ui" --silent -- --logLevel warn || { complain "the dashboard could not be built" && return 1; }
  echo "$sources" >"$ui/node_modules/.built"
}

# has_node: a Node that can build it; installed when there is none.
has_node() {
  local have
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    (need_packages node=nodejs npm=npm) || return 1
  fi
  have=$(node --version)
  at_least "${have#v}" "$node_version" && return
  complain "Node $have is too old for the dashboard; $node_version or later is needed"
  return 1
}
