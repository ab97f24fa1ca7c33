# Our own server inside of the guest, on a file of the guest's ext4: a client writes and flushes until the power is cut.
# One half of the image has been written before, the other is a hole.
. /guest/common.sh

step "an image on ext4"
until_true 60 test -b /dev/vda
mkfs.ext4 -q -F /dev/vda
mount -t ext4 /dev/vda /mnt
truncate -s 8M /mnt/disk.img
dd if=/dev/zero of=/mnt/disk.img bs=4k count=1024 conv=notrunc 2>/dev/null
sync

step "serve it"
nbd-dataplane serve --map=always -f raw -k /tmp/socket --log-level warn /mnt/disk.img &
server=$!
until_true 60 test -S /tmp/socket

step "write until the power is cut"
powercut write /tmp/socket "$E2E_seed" "$server"
