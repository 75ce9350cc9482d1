# SPDX-License-Identifier: GPL-2.0-or-later
# Shared by the scripts in this folder; sourced, not run.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Debian 12 package names. What each is for: docs/building.md.
packages=(
  clang-19 libclang-rt-19-dev clang-format-19 clang-tidy-19 g++ cmake ninja-build ccache
  libzydis-dev libcapstone-dev libunicorn-dev libcli11-dev libfmt-dev nlohmann-json3-dev
  libsqlite3-dev libgtest-dev libgmock-dev libbenchmark-dev linux-libc-dev python3
)

say() { printf '\n== %s\n' "$*"; }

# Installs what is missing. Without root it uses sudo where that asks no password, else says what to
# run and goes on only if nothing is missing.
install_packages() {
  local missing=() p
  if ! command -v dpkg-query >/dev/null; then
    say "this is not a Debian machine: install the equivalents of: ${packages[*]}"
    return 0
  fi
  for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "packages: all ${#packages[@]} are installed"
    return 0
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      echo "These packages are missing and installing them needs root:" >&2
      echo "    sudo apt-get install ${missing[*]}" >&2
      echo "Run that once, then start this script again." >&2
      exit 3
    fi
  fi
  say "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  # By `env`, behind sudo: sudo passes no variables on.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${missing[@]}" >/dev/null
}

# build FOLDER [cmake arguments...]: configures and builds in FOLDER, everything or what $targets names.
build() {
  local folder=$1
  shift
  local launcher=()
  if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  cmake -S . -B "$folder" -G Ninja "${launcher[@]}" "$@" >"$folder.configure.log" 2>&1 || {
    cat "$folder.configure.log" >&2
    exit 1
  }
  rm -f "$folder.configure.log"
  # shellcheck disable=SC2086
  cmake --build "$folder" ${targets:+--target $targets}
}

# Debug information of three builds would be most of their time.
clang=(-DCMAKE_CXX_FLAGS_RELWITHDEBINFO='-O2 -g1 -DNDEBUG'
       -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19)
gcc=(-DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1
     -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++)

# One line on what /dev/kvm is here, so that nobody wonders what was skipped.
say_kvm() {
  if [ ! -e /dev/kvm ]; then
    echo "/dev/kvm: absent; the kvm target and its tests are skipped, native or unicorn is used"
  elif [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
    echo "/dev/kvm: no permission; add yourself to its group: sudo usermod -aG $(stat -c %G /dev/kvm) $(id -un)"
  else
    echo "/dev/kvm: usable"
  fi
}
