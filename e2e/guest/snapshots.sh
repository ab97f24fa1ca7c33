# A file system is written to while the host takes snapshots of what is under it, and trimmed. The disk is /dev/vda, or with E2E_port the kernel's
# nbd device. Where it says READY, the host takes a snapshot; the guest neither waits for it nor learns of it.
. /guest/common.sh

rounds=6

# write_round N: what is there is written over, something new is added, something old removed.
write_round() {
  dd if=/dev/urandom of=/mnt/over bs=64k count=32 conv=fsync,notrunc 2>/dev/null
  write_files "/mnt/round$1" 4 1
  [ "$1" -le 2 ] || rm -r "/mnt/round$(($1 - 2))"
}

if [ -n "${E2E_port:-}" ]; then
  . /guest/attaching.sh
  disk=/dev/nbd0
  step "attach $disk"
  network_up
  attach -C 4
else
  disk=/dev/vda
  until_true 60 test -b "$disk"
fi

step "a file system on $disk"
expect "size in bytes" "$(blockdev --getsize64 "$disk")" "$E2E_size"
mkfs.ext4 -q -F "$disk"
mount -t ext4 "$disk" /mnt
write_files /mnt/before 4 2

step "write while snapshots are taken"
for round in $(seq $rounds); do
  echo "E2E READY $round"
  write_round "$round"
done
trim_freed /mnt 16

step "verify"
for dir in before round$rounds; do verify_files "/mnt/$dir"; done
if dmesg | grep -E 'I/O error|EXT4-fs error'; then
  echo "E2E WRONG the kernel saw errors"
  exit 1
fi
umount /mnt
e2fsck -fn "$disk"

if [ -n "${E2E_port:-}" ]; then
  step "detach"
  detach
fi
