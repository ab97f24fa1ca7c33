package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"syscall"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/keyval"
)

// imageWindow is a part of a file that is used as a whole: the options offset and size of the driver raw.
type imageWindow struct {
	offset, sizeBytes    int64  // no size: to the end
	offsetText, sizeText string // as they were given
}

// takeWindow looks for one in a set of options, which keeps it.
func takeWindow(set *keyval.Set) *imageWindow {
	w := imageWindow{offsetText: set.TakeOr("offset", ""), sizeText: set.TakeOr("size", "")}
	if w.offsetText == "" && w.sizeText == "" {
		return nil
	}
	for key, text := range map[string]string{"offset": w.offsetText, "size": w.sizeText} {
		if text != "" {
			set.Put(key, text)
		}
	}
	return &w
}

// name is what qemu-img calls the image: what it is made of, where that is more than a file.
func (p *imagePlace) name(asText bool) string {
	if p.window == nil {
		return p.path
	}
	quote := func(text string) string {
		if asText || strings.Trim(text, "0123456789") != "" {
			return jsonText(text)
		}
		return text
	}
	var b strings.Builder
	b.WriteString("{")
	if p.window.offsetText != "" {
		b.WriteString(`"offset": ` + quote(p.window.offsetText) + ", ")
	}
	b.WriteString(`"driver": "raw"`)
	if p.window.sizeText != "" {
		b.WriteString(`, "size": ` + quote(p.window.sizeText))
	}
	fmt.Fprintf(&b, `, "file": {"driver": "file", "filename": %s}}`, jsonText(p.path))
	if p.format == formatQcow2 {
		return `json:{"driver": "qcow2", "file": ` + b.String() + "}"
	}
	return "json:" + b.String()
}

// windowStorage is a part of a file, which is a file to who uses it.
type windowStorage struct {
	storage
	*imageWindow
}

// within puts the window of a place over a file that has it.
func (p *imagePlace) within(file storage) (storage, error) {
	w := p.window
	if w == nil {
		return file, nil
	}
	end, err := file.Size()
	switch {
	case err != nil:
		return nil, err
	case w.offset > end && w.sizeBytes == 0:
		return nil, fmt.Errorf("Offset (%d) cannot be greater than size of the containing file (%d)", w.offset, end)
	case w.offset > end || w.sizeBytes > end-w.offset:
		return nil, fmt.Errorf("The sum of offset (%d) and size (%d) has to be smaller or equal to the  actual size of the containing file (%d)", w.offset, w.sizeBytes, end)
	}
	return &windowStorage{file, w}, nil
}

// Size is that of the window.
func (w *windowStorage) Size() (int64, error) {
	if w.sizeBytes > 0 {
		return w.sizeBytes, nil
	}
	end, err := w.storage.Size()
	return max(end-w.offset, 0), err
}

// ReadAt reads what the window has.
func (w *windowStorage) ReadAt(p []byte, at int64) (int, error) {
	size, err := w.Size()
	there := min(max(size-at, 0), int64(len(p)))
	if err != nil || at < 0 || there == 0 && len(p) > 0 {
		return 0, errors.Join(err, io.EOF)
	}
	n, err := w.storage.ReadAt(p[:there], w.offset+at)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt writes within the window; one without a size goes on behind its end.
func (w *windowStorage) WriteAt(p []byte, at int64) (int, error) {
	if w.sizeBytes > 0 && at+int64(len(p)) > w.sizeBytes {
		return 0, syscall.ENOSPC
	}
	return w.storage.WriteAt(p, w.offset+at)
}

// errFixedWindow is for a window of a size that was said.
var errFixedWindow = errors.New("Cannot resize fixed-size raw disks")

// Truncate has the file end where the window is to end.
func (w *windowStorage) Truncate(sizeBytes int64) error {
	if w.sizeBytes > 0 {
		return errFixedWindow
	}
	return w.storage.Truncate(w.offset + sizeBytes)
}

// Allocate sets space of the file apart.
func (w *windowStorage) Allocate(at, lengthBytes int64) error {
	a, can := w.storage.(offline.Allocator)
	if !can {
		return syscall.ENOTSUP
	}
	return a.Allocate(w.offset+at, lengthBytes)
}

// Expect has the file read ahead, if it does.
func (w *windowStorage) Expect(parts iter.Seq[offline.Part]) {
	f, can := w.storage.(interface{ Expect(iter.Seq[offline.Part]) })
	if !can {
		return
	}
	f.Expect(func(yield func(offline.Part) bool) {
		for part := range parts {
			if !yield(offline.Part{At: w.offset + part.At, Length: part.Length}) {
				return
			}
		}
	})
}

func (w *windowStorage) holes(from, to int64, visit func(at, length int64, hole bool) error) error {
	return w.storage.holes(w.offset+from, w.offset+to, func(at, length int64, hole bool) error { return visit(at-w.offset, length, hole) })
}
