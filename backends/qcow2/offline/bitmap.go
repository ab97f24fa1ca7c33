package offline

import (
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// bitmapsExtension is the extension, if the image says that it is good.
func (im *Image) bitmapsExtension() (format.BitmapsExtension, bool) {
	e := im.header.Extension(format.ExtensionBitmaps)
	if e == nil || im.header.Autoclear&format.AutoclearBitmaps == 0 {
		return format.BitmapsExtension{}, false
	}
	ext, err := format.ParseBitmaps(e.Data, im.g)
	return ext, err == nil
}

func (im *Image) readBitmaps(ext format.BitmapsExtension) ([]format.Bitmap, error) {
	if int64(ext.DirectoryOffset)+int64(ext.DirectoryBytes) > im.fileBytes+im.g.ClusterBytes() {
		return nil, syscall.EINVAL
	}
	directory := make([]byte, ext.DirectoryBytes)
	if err := readAt(im.file, directory, int64(ext.DirectoryOffset)); err != nil {
		return nil, err
	}
	return format.ParseBitmapDirectory(directory, ext, im.g, int64(im.header.SizeBytes))
}

// Bitmaps lists the persistent bitmaps of the image.
func (im *Image) Bitmaps() ([]format.Bitmap, error) {
	ext, ok := im.bitmapsExtension()
	if !ok {
		return nil, nil
	}
	return im.readBitmaps(ext)
}
