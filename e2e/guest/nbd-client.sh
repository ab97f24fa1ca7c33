# The kernel's own client: /dev/nbd0 by nbd-client over TCP, with one connection and then with four.
. /guest/common.sh
. /guest/attaching.sh

disk=/dev/nbd0

queue=/sys/block/nbd0/queue

step "attach $disk with one connection"
network_up
attach

step "what the kernel has understood of the export"
expect "size in bytes" "$(blockdev --getsize64 $disk)" "$E2E_size"
expect "read-only" "$(cat /sys/block/nbd0/ro)" 0
expect_at_least "largest discard in bytes" "$(cat $queue/discard_max_bytes)" 1048576
expect "write cache (flushes are sent)" "$(cat $queue/write_cache)" "write back"
expect "FUA" "$(cat $queue/fua)" 1

step "mkfs.ext4"
mkfs.ext4 -q -F $disk

step "write files, trim, verify"
mount -t ext4 $disk /mnt
write_files /mnt/one 4 4
trim_freed /mnt 48
verify_files /mnt/one
umount /mnt

step "e2fsck after one connection"
e2fsck -fn $disk

step "detach"
detach

step "attach $disk with four connections"
attach -C 4

step "four writers at once, verify"
mount -t ext4 $disk /mnt
verify_files /mnt/one
for n in 1 2 3 4; do
  write_files "/mnt/four$n" 2 2 &
  eval "writer$n=\$!"
done
for n in 1 2 3 4; do
  eval "wait \$writer$n"
done
trim_freed /mnt 16
for n in 1 2 3 4; do verify_files "/mnt/four$n"; done
umount /mnt

step "e2fsck after four connections"
e2fsck -fn $disk

step "detach"
detach
