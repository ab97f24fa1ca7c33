# What the guest's scripts share. Sourced; the scripts run under sh -eu.

# step SENTENCE: what is done next. The last one is named when the script fails.
step() {
  echo "E2E STEP $*"
  echo "$*" >/tmp/step
}

# expect NAME GOT WANT
expect() {
  echo "E2E FACT $1 = $2"
  [ "$2" = "$3" ] || { echo "E2E WRONG $1: got '$2', want '$3'"; return 1; }
}

# expect_at_least NAME GOT MIN
expect_at_least() {
  echo "E2E FACT $1 = $2"
  [ "$2" -ge "$3" ] || { echo "E2E WRONG $1: got '$2', want at least $3"; return 1; }
}

# until_true SECONDS COMMAND...: for what the kernel does in its own time.
until_true() {
  local left=$1
  shift
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "E2E WRONG this never became true: $*"; return 1; }
    sleep 1
  done
}

network_up() {
  ip link set lo up
  until_true 60 test -d /sys/class/net/eth0
  ip addr add 10.0.2.15/24 dev eth0
  ip link set eth0 up
}

# write_files DIR COUNT MIB: random files, and their checksums beside them.
write_files() {
  mkdir -p "$1"
  local n
  for n in $(seq "$2"); do
    dd if=/dev/urandom of="$1/file$n" bs=1M count="$3" 2>/dev/null
  done
  (cd "$1" && sha256sum file* >SUMS)
  sync
}

# verify_files DIR: from the disk and not from memory.
verify_files() {
  echo 3 >/proc/sys/vm/drop_caches
  (cd "$1" && sha256sum -c SUMS >/tmp/sums) || { cat /tmp/sums; return 1; }
  echo "E2E FACT checksums of $1 hold ($(wc -l <"$1/SUMS") files)"
}

# trim_freed DIR MIB: writes and removes a file, then lets the file system discard what is free.
trim_freed() {
  dd if=/dev/urandom of="$1/passing" bs=1M count="$2" 2>/dev/null
  sync
  rm "$1/passing"
  sync
  echo "E2E FACT $(fstrim -v "$1")"
}
