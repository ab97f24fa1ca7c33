package qcow2

import (
	"fmt"
	"strconv"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Corruption is something in an image that cannot be right.
type Corruption struct {
	Fatal bool // the image takes no requests any more
	Text  string
	// Offset and SizeBytes are where in the file it was about to be made worse; -1 = not known.
	Offset, SizeBytes int64
	// Node is the name of the node; "" = it is in no graph yet.
	Node string
}

// Message is what QEMU prints.
func (c Corruption) Message() string {
	if c.Fatal {
		return "qcow2: Marking image as corrupt: " + c.Text + "; further corruption events will be suppressed"
	}
	return "qcow2: Image is corrupt: " + c.Text + "; further non-fatal corruption events will be suppressed"
}

// corrupt tells of corruption and returns the error of the request that met it. What is fatal marks the image, which takes no request from then on;
// in an image that is not written it is not fatal.
func (i *Image) corrupt(t *blockcore.Task, fatal bool, offset, sizeBytes int64, text string, args ...any) error {
	fatal = fatal && !i.readOnly
	c := Corruption{Fatal: fatal, Text: fmt.Sprintf(text, args...), Offset: offset, SizeBytes: sizeBytes}
	if i.node != nil {
		c.Node = i.node.Name()
	}
	err := fmt.Errorf("qcow2: %s: %w", c.Text, errCorrupt)
	if i.broken || i.told && !fatal {
		return err
	}
	i.told = true
	i.broken = fatal
	i.warn(c.Message())
	if i.options.OnCorrupted != nil {
		i.options.OnCorrupted(c)
	}
	if fatal {
		err := i.changeHeader(t, func(h *format.Header) { h.Incompatible |= format.IncompatibleCorrupt })
		if err != nil {
			i.warn("qcow2: Could not mark image as corrupt: " + err.Error())
		}
	}
	return err
}

// hex writes a number as C's %#x does.
func hex[N format.Host | format.Guest | int | int64](n N) string {
	if n == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(uint64(n), 16)
}
