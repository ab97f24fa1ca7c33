# After the cut: the journal is replayed, and the image is read without a server.
. /guest/common.sh

step "mount what the cut has left"
until_true 60 test -b /dev/vda
mount -t ext4 /dev/vda /mnt

step "all that was flushed is there"
powercut verify /mnt/disk.img "$E2E_seed" "$E2E_flushed"
umount /mnt

step "e2fsck after it"
e2fsck -fn /dev/vda
