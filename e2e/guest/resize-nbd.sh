# A resize reaches the kernel's nbd device while a file system on it is written to: once connected by netlink, as nbd-client does by
# itself, and once by ioctl. Where it says READY, the host resizes the export.
. /guest/common.sh
. /guest/attaching.sh
. /guest/resizing.sh

disk=/dev/nbd0

export_has() { nbd-dataplane list -b "$address" -p "$E2E_port" | grep -q "^  size:  $1\$"; }

# refused STATUS TEXT COMMAND...: the command fails with that status and says that.
refused() {
  local want=$1 text=$2 status=0
  shift 2
  "$@" 2>/tmp/refusal || status=$?
  expect "status of '$*'" "$status" "$want"
  grep -q "$text" /tmp/refusal || { echo "E2E WRONG it said: $(cat /tmp/refusal)"; return 1; }
}

# grow WHAT FROM TO: while there is a writer.
grow() {
  start_writer
  echo "E2E READY $1"
  until_true 60 export_has "$3"
  expect "size that the kernel believes" "$(blockdev --getsize64 $disk)" "$2"
  echo "E2E FACT $(nbd-dataplane device-size $disk "$3")"
  expect "size in bytes" "$(blockdev --getsize64 $disk)" "$3"
  grow_and_fill "$1"
  stop_writer
}

step "what is refused without a connection"
network_up
refused 4 "nothing is connected to it" nbd-dataplane device-size $disk
refused 4 "nothing is connected to it" nbd-dataplane device-size $disk 1G

step "a file system on $disk, connected by netlink"
attach
expect "size in bytes" "$(blockdev --getsize64 $disk)" "$E2E_small"
mkfs.ext4 -q -F $disk
mount -t ext4 $disk /mnt
write_files /mnt/before 2 4

step "what is refused"
expect "size shown" "$(nbd-dataplane device-size $disk)" "$disk: 64M ($E2E_small bytes)"
refused 2 "add --shrink if it may" nbd-dataplane device-size $disk 1M
echo "nobody:x:65534:65534::/:/bin/sh" >/etc/passwd
refused 1 "permission denied: only root" su nobody -c "nbd-dataplane device-size $disk $E2E_medium"
refused 1 "outside of the container" unshare -n nbd-dataplane device-size $disk "$E2E_medium"
expect "size in bytes" "$(blockdev --getsize64 $disk)" "$E2E_small"

step "grow under a writer, by netlink"
grow netlink "$E2E_small" "$E2E_medium"
verify_grown before netlink
umount /mnt
e2fsck -fn $disk
detach

step "grow under a writer, by ioctl"
attach -nonetlink
mount -t ext4 $disk /mnt
grow ioctl "$E2E_medium" "$E2E_large"
verify_grown before netlink ioctl
rm -r /mnt/ioctl
umount /mnt
e2fsck -fn $disk

step "shrink what nobody uses"
e2fsck -fp $disk
resize2fs $disk "$((E2E_shrunk / 512))s"
detach -nonetlink
echo "E2E READY shrink"
until_true 60 export_has "$E2E_shrunk"
attach
expect "size in bytes" "$(blockdev --getsize64 $disk)" "$E2E_shrunk"
e2fsck -fn $disk
mount -t ext4 $disk /mnt
verify_grown before netlink
umount /mnt
detach
