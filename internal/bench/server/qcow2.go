package server

import "strconv"

// imageOptions describe a qcow2 image to all who take QEMU's --image-opts.
func (s Setup) imageOptions(aio string) string {
	return "driver=qcow2" + s.cacheOption() + ",file.driver=file,file.aio=" + aio + ",file.filename=" + s.File
}

func (s Setup) cacheOption() string {
	if s.L2CacheBytes == 0 {
		return ""
	}
	return ",l2-cache-size=" + strconv.FormatInt(s.L2CacheBytes, 10)
}

const nodeOfStorageDaemon = "disk"

// storageDaemon is the command line of qemu-storage-daemon.
func storageDaemon(s Setup) ([]string, error) {
	return []string{"qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=file,aio=io_uring,filename=" + s.File,
		"--blockdev", "driver=qcow2,file=file,node-name=" + nodeOfStorageDaemon + s.cacheOption(),
		"--nbd-server", "addr.type=unix,addr.path=" + s.socket() + ",max-connections=0",
		"--export", "nbd,id=export,writable=on,node-name=" + nodeOfStorageDaemon}, nil
}
