# A resize reaches a virtual machine whose disk is QEMU's nbd: drive, while a file system on it is written to. The guest sees a virtio-blk
# disk that grows. Where it says READY, the host resizes the export and tells QEMU.
. /guest/common.sh
. /guest/resizing.sh

disk=/dev/vda

has_size() { [ "$(blockdev --getsize64 $disk)" = "$1" ]; }

step "a file system on $disk"
until_true 60 test -b $disk
expect "size in bytes" "$(blockdev --getsize64 $disk)" "$E2E_small"
mkfs.ext4 -q -F $disk
mount -t ext4 $disk /mnt
write_files /mnt/before 2 4

step "grow under a writer"
start_writer
echo "E2E READY grow"
until_true 90 has_size "$E2E_medium"
grow_and_fill after
stop_writer
verify_grown before after
umount /mnt

step "e2fsck after it"
e2fsck -fn $disk
