package main

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/keyval"
)

// imageMap is one run of image map.
type imageMap struct {
	imageFlags
	c             console
	from, length  string
	layers        []*mapLayer
	asJSON, begun bool
	last          mapEntry // not printed yet; the next may continue it
}

// mapEntry is a part of the disk that is read in one way.
type mapEntry struct {
	start, length int64
	depth         int
	present       bool
	zero, data    bool
	offset        int64 // negative = none
	file          string
}

func newImageMap(c console) *cobra.Command {
	t := &imageMap{c: c}
	cmd := &cobra.Command{
		Use:     "map [-f FMT] [--output=human|json] [-s OFFSET] [-l LENGTH] [-U] [--image-opts] FILE",
		Short:   "Show which file of a chain has which part of the disk, and where",
		Example: "  nbd-dataplane image map overlay.qcow2\n  nbd-dataplane image map --output=json overlay.qcow2 | jq 'map(select(.depth == 0).length) | add'",
		Args:    oneImage,
		RunE:    func(_ *cobra.Command, args []string) error { return t.run(args[0]) },
	}
	t.add(c, cmd, "format output force-share image-opts")
	cmd.Flags().StringVarP(&t.from, "start-offset", "s", "0", "begin at `OFFSET`")
	cmd.Flags().StringVarP(&t.length, "max-length", "l", "", "end after `LENGTH`")
	return cmd
}

func (t *imageMap) run(path string) (err error) {
	if t.asJSON, err = t.json(); err != nil {
		return err
	}
	from, err := keyval.Size("start-offset", t.from)
	if err != nil {
		return failed(err)
	}
	length := int64(math.MaxInt64)
	if t.length != "" {
		if length, err = keyval.Size("max-length", t.length); err != nil {
			return failed(err)
		}
	}
	defer t.close()
	if err := t.openChain(path); err != nil {
		return err
	}
	size := t.layers[0].sizeBytes
	to := size
	if length < size-min(from, size) {
		to = from + length
	}
	if t.asJSON {
		fmt.Fprint(t.c.out, "[")
	} else {
		fmt.Fprintf(t.c.out, "%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File")
	}
	t.last = mapEntry{start: from, offset: -1}
	if err := t.visit(0, min(from, size), to); err != nil {
		return failed(err)
	}
	if err := t.print(t.last); err != nil {
		return failed(err)
	}
	if t.asJSON {
		fmt.Fprintln(t.c.out, "]")
	}
	return nil
}

func (t *imageMap) close() {
	for _, l := range t.layers {
		if l.data != nil && l.data != storage(l.file) {
			l.data.Close()
		}
		l.file.Close()
	}
}

// openChain opens an image and all that is below it.
func (t *imageMap) openChain(path string) error {
	infos, err := t.describeAll(path) // a chain that comes back to itself is found out
	if err != nil {
		return err
	}
	for _, info := range infos {
		flags := &imageFlags{share: t.share, warn: t.warn}
		file, err := flags.openPlace(info.place, false)
		if err != nil {
			return couldNot(path, err)
		}
		l := &mapLayer{file: file, sizeBytes: int64(info.VirtualSize), name: info.place.path}
		t.layers = append(t.layers, l)
		if file.format == "raw" {
			continue
		}
		if l.im, err = file.open(info.Filename, format.ForUse); err != nil {
			return err
		}
		l.walk = l.im.NewWalk()
		if err := t.openData(l, info); err != nil {
			return err
		}
		if l.sparse, err = l.im.UsesMoreThan(info.ActualSize / info.ClusterSize); err != nil {
			return couldNot(info.Filename, err)
		}
	}
	return nil
}

// openData finds out where the data of an image is.
func (t *imageMap) openData(l *mapLayer, info *imageInfo) (err error) {
	l.data = l.file
	if !l.im.Header().Has(format.IncompatibleDataFile) {
		return nil
	}
	l.name = l.im.Header().DataFile()
	if other := info.place.data; other != nil {
		l.name = other.path
	}
	if l.data, err = openDataFile(&info.place, l.im, false, t.share, t.warn); err != nil {
		l.data = nil
		return couldNot(info.Filename, fmt.Errorf("Could not open '%s': %s", l.name, openText(l.name, err)))
	}
	return nil
}

// visit tells the parts between two offsets, from the layer of that depth on down.
func (t *imageMap) visit(depth int, from, to int64) error {
	l := t.layers[depth]
	return l.extents(from, to, func(e mapEntry) error {
		e.depth, e.file = depth, l.name
		if e.present || depth+1 == len(t.layers) {
			return t.tell(e)
		}
		// What is below may be shorter; behind its end there are zeroes.
		below := min(e.start+e.length, max(e.start, t.layers[depth+1].sizeBytes))
		if below > e.start {
			if err := t.visit(depth+1, e.start, below); err != nil {
				return err
			}
		}
		e.length -= below - e.start
		e.start = below
		if e.length == 0 {
			return nil
		}
		return t.tell(e)
	})
}

// tell continues the last entry, or prints it and begins another.
func (t *imageMap) tell(e mapEntry) error {
	if !e.present {
		e.zero, e.data = true, false
	}
	l := &t.last
	if l.length > 0 && l.zero == e.zero && l.data == e.data && l.depth == e.depth && l.present == e.present && l.file == e.file &&
		(l.offset < 0) == (e.offset < 0) && (e.offset < 0 || l.offset+l.length == e.offset) {
		l.length += e.length
		return nil
	}
	if l.length > 0 {
		if err := t.print(*l); err != nil {
			return err
		}
	}
	t.last = e
	return nil
}

func (t *imageMap) print(e mapEntry) error {
	if t.asJSON {
		if t.begun {
			fmt.Fprint(t.c.out, ",\n")
		}
		t.begun = true
		e.writeJSON(t.c.out)
		return nil
	}
	if !e.data || e.zero {
		return nil
	}
	if e.offset < 0 {
		return errors.New("File contains external, encrypted or compressed clusters.")
	}
	fmt.Fprintf(t.c.out, "%-16s%-16s%-16s%s\n", hexOr0(e.start), hexOr0(e.length), hexOr0(e.offset), e.file)
	return nil
}

func (e mapEntry) writeJSON(w io.Writer) {
	fmt.Fprintf(w, `{ "start": %d, "length": %d, "depth": %d, "present": %t, "zero": %t, "data": %t`, e.start, e.length, e.depth, e.present, e.zero, e.data)
	if e.offset >= 0 {
		fmt.Fprintf(w, `, "offset": %d`, e.offset)
	}
	fmt.Fprint(w, "}")
}

// hexOr0 is a number as C's %#x prints it.
func hexOr0(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

// mapLayer is one file of a chain.
type mapLayer struct {
	file      *imageFile
	im        *offline.Image // nil = a plain file
	walk      *offline.Walk  // over im
	sizeBytes int64
	name      string
	data      storage // where the data of im is
	sparse    bool    // the file has holes enough, as QEMU sees it, for clusters to be looked up in it
}

func (l *mapLayer) extents(from, to int64, visit func(mapEntry) error) error {
	if l.im == nil {
		begin := int64(0)
		if w := l.file.place.window; w != nil {
			begin = w.offset
		}
		return l.file.holes(from, min(to, l.sizeBytes), func(at, length int64, hole bool) error {
			return visit(mapEntry{start: at, length: length, present: true, zero: hole, data: !hole, offset: begin + at})
		})
	}
	return l.walk.Extents(from, to, func(e offline.Extent) error {
		entry := mapEntry{start: e.At, length: e.Length, offset: e.Offset}
		switch e.Kind {
		case format.ZeroPlain, format.ZeroAlloc:
			entry.present, entry.zero = true, true
		case format.Normal, format.Compressed:
			entry.present, entry.data = true, true
		}
		if e.Kind != format.Normal || !l.sparse {
			return visit(entry)
		}
		return l.data.holes(e.Offset, e.Offset+e.Length, func(at, length int64, hole bool) error {
			part := entry
			part.start, part.length, part.offset, part.zero = e.At+at-e.Offset, length, at, hole
			return visit(part)
		})
	})
}
