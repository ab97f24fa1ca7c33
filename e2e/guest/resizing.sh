# What the two resizing scripts share. Sourced behind common.sh; the disk is $disk, and its file system is at /mnt.

# start_writer: files with checksums, one after the other, until stop_writer.
start_writer() {
  rm -f /tmp/stop
  write_until_stopped &
  writer=$!
}

write_until_stopped() {
  mkdir -p /mnt/writing
  local n=0
  while [ ! -e /tmp/stop ]; do
    n=$((n % 8 + 1))
    dd if=/dev/urandom of="/mnt/writing/file$n" bs=256k count=4 conv=fsync 2>/dev/null
  done
  (cd /mnt/writing && sha256sum file* >SUMS)
}

stop_writer() {
  touch /tmp/stop
  wait "$writer"
  sync
}

room() { df -k /mnt | awk 'END {print $2}'; }

# grow_and_fill DIR: the file system takes the new room, and more is written into it than it had left before.
grow_and_fill() {
  local before
  before=$(room)
  resize2fs "$disk"
  expect_at_least "KiB of room in the file system" "$(room)" $((before + 40000))
  write_files "/mnt/$1" 4 10
}

# verify_grown DIR...
verify_grown() {
  local dir
  for dir in writing "$@"; do verify_files "/mnt/$dir"; done
  if dmesg | grep -E 'I/O error|EXT4-fs error'; then
    echo "E2E WRONG the kernel saw errors"
    return 1
  fi
}
