# QEMU's client: the disk that nbd-client filled, now a virtio-blk disk on QEMU's nbd: drive. The guest knows nothing of NBD.
. /guest/common.sh

disk=/dev/vda

step "the disk as QEMU shows it"
until_true 60 test -b $disk
expect "size in bytes" "$(blockdev --getsize64 $disk)" "$E2E_size"
expect_at_least "largest discard in bytes" "$(cat /sys/block/vda/queue/discard_max_bytes)" 1048576

step "e2fsck before it is mounted"
e2fsck -fn $disk

step "verify what nbd-client wrote"
mount -t ext4 $disk /mnt
for set in one four1 four2 four3 four4; do verify_files /mnt/$set; done

step "write more, trim, verify"
write_files /mnt/virtio 4 4
trim_freed /mnt 16
verify_files /mnt/virtio
umount /mnt

step "e2fsck after it"
e2fsck -fn $disk
