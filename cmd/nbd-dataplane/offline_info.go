package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
)

// imageInfo is what is said of an image, with QEMU's names and in its order.
type imageInfo struct {
	Snapshots           []snapshotInfo  `json:"snapshots,omitempty"`
	BackingFormat       string          `json:"backing-filename-format,omitempty"`
	VirtualSize         uint64          `json:"virtual-size"`
	Filename            string          `json:"filename"`
	ClusterSize         int64           `json:"cluster-size,omitempty"`
	Format              string          `json:"format"`
	ActualSize          int64           `json:"actual-size"`
	Encrypted           bool            `json:"encrypted,omitempty"`
	FormatSpecific      *formatSpecific `json:"format-specific,omitempty"`
	FullBackingFilename string          `json:"full-backing-filename,omitempty"`
	BackingFilename     string          `json:"backing-filename,omitempty"`
	DirtyFlag           bool            `json:"dirty-flag"`

	place imagePlace
}

// snapshotInfo is a snapshot.
type snapshotInfo struct {
	ICount      *int64 `json:"icount,omitempty"`
	VMClockNsec uint64 `json:"vm-clock-nsec"`
	Name        string `json:"name"`
	DateSec     uint32 `json:"date-sec"`
	DateNsec    uint32 `json:"date-nsec"`
	VMClockSec  uint64 `json:"vm-clock-sec"`
	ID          string `json:"id"`
	VMStateSize uint64 `json:"vm-state-size"`
}

type formatSpecific struct {
	Type string             `json:"type"`
	Data format.Description `json:"data"`
}

func newImageInfo(c console) *cobra.Command {
	f := &imageFlags{noBacking: true}
	chain := false
	cmd := &cobra.Command{
		Use:     "info [-f FMT] [--output=human|json] [--backing-chain] [-U] [--image-opts] FILE",
		Short:   "Describe an image",
		Example: "  nbd-dataplane image info disk.qcow2\n  nbd-dataplane image info --backing-chain --output=json top.qcow2 | jq '.[].filename'",
		Args:    oneImage,
		RunE: func(_ *cobra.Command, args []string) error {
			asJSON, err := f.json()
			if err != nil {
				return err
			}
			all, err := f.describe(args[0], chain)
			if err != nil {
				return err
			}
			switch {
			case asJSON && chain:
				return writeQEMUJSON(c.out, all)
			case asJSON:
				return writeQEMUJSON(c.out, all[0])
			}
			for i, info := range all {
				if i > 0 {
					fmt.Fprintln(c.out)
				}
				info.write(c.out)
			}
			return nil
		},
	}
	f.add(c, cmd, "format output force-share image-opts")
	cmd.Flags().BoolVar(&chain, "backing-chain", false, "describe the backing files as well")
	return cmd
}

// describe describes an image, and with chain those below it. A chain that comes back to itself is refused. With an error it returns those above of where that was.
func (f *imageFlags) describe(name string, chain bool) ([]*imageInfo, error) {
	var all []*imageInfo
	seen := map[string]bool{}
	flags := *f
	info, err := flags.describeOne(name)
	for {
		if err != nil {
			return all, err
		}
		seen[info.Filename] = true
		all = append(all, info)
		below := &info.place
		switch {
		case !chain || !f.noBacking && below.noBacking:
			return all, nil
		case !f.noBacking && below.backing != nil:
			info, err = flags.describePlace(*below.backing)
			if err != nil {
				err = couldNot(name, fmt.Errorf("Could not open backing file: %w", err))
			}
			continue
		case info.BackingFilename == "":
			return all, nil
		}
		name, flags.format, flags.options = info.FullBackingFilename, info.BackingFormat, false
		if seen[name] {
			return all, failed(fmt.Errorf("Backing file '%s' creates an infinite loop.", name))
		}
		info, err = flags.describeOne(name)
	}
}

// describeAll is describe for who opens the whole chain at once: of an image that cannot be opened it says below which it is, as QEMU does.
func (f *imageFlags) describeAll(path string) ([]*imageInfo, error) {
	all, err := f.describe(path, true)
	if err == nil || len(all) == 0 {
		return all, err
	}
	inner, is := strings.CutPrefix(err.Error(), fmt.Sprintf("Could not open '%s': ", all[len(all)-1].FullBackingFilename))
	if !is {
		return all, err
	}
	return all, couldNot(path, errors.New(strings.Repeat("Could not open backing file: ", len(all))+inner))
}

func (f *imageFlags) describeOne(name string) (*imageInfo, error) {
	file, err := f.openFile(name, false)
	if err != nil {
		return nil, err
	}
	info, err := file.describe()
	if err != nil {
		return nil, couldNot(name, err)
	}
	return info, nil
}

// describePlace is describeOne for what another image stands on.
func (f *imageFlags) describePlace(p imagePlace) (*imageInfo, error) {
	file, err := f.openPlace(p, false)
	if err != nil {
		return nil, err
	}
	return file.describe()
}

// describe describes the image in a file, and closes that.
func (f *imageFile) describe() (*imageInfo, error) {
	defer f.Close()
	info := &imageInfo{Filename: f.path, Format: f.driver, ActualSize: f.usedBytes(), place: f.place}
	info.place.format = f.format
	if f.format == "raw" {
		size, err := f.Size()
		info.VirtualSize = uint64(size+sectorBytes-1) &^ (sectorBytes - 1)
		return info, err
	}
	im, err := offline.Open(f.storage, format.ForUse)
	if err != nil {
		return nil, err
	}
	return info, info.readQcow2(im, f.place.path)
}

const sectorBytes = 512

func (info *imageInfo) readQcow2(im *offline.Image, path string) error {
	h := im.Header()
	info.VirtualSize, info.ClusterSize = h.SizeBytes, h.Geometry().ClusterBytes()
	info.DirtyFlag, info.Encrypted = h.Has(format.IncompatibleDirty), h.Crypt != format.CryptNone
	if info.BackingFilename, info.BackingFormat = h.Backing, h.BackingFormat(); h.Backing != "" {
		info.FullBackingFilename = besideImage(path, h.Backing)
	}
	for _, s := range im.Snapshots() {
		info.Snapshots = append(info.Snapshots, describeSnapshot(&s))
	}
	bitmaps, err := im.Bitmaps()
	if err != nil {
		return err
	}
	info.FormatSpecific = &formatSpecific{Type: "qcow2", Data: format.Describe(h, bitmaps)}
	return nil
}

// besideImage is the name of another file as an image has it, which counts from the image's directory.
func besideImage(image, name string) string {
	if protocol, isURL := protocolOf(name); filepath.IsAbs(name) || isURL && protocol != "file" {
		return name
	}
	if isNFS(image, name) {
		if options, err := nfsBeside(image, name); err == nil {
			return options.URL()
		}
	}
	name = strings.TrimPrefix(name, "file:")
	at := strings.LastIndexByte(image, '/')
	return image[:at+1] + name
}

// dataFileOf is the name of the external data file of an image: as it is, and for an image on an NFS server one beside it.
func dataFileOf(image, name string) string {
	if isNFS(image, name) {
		return besideImage(image, name)
	}
	return name
}

func describeSnapshot(s *format.Snapshot) snapshotInfo {
	const second = 1e9
	info := snapshotInfo{
		ID: s.ID, Name: s.Name, DateSec: s.Seconds, DateNsec: s.Nanoseconds, VMStateSize: s.VMStateBytes,
		VMClockSec: s.VMClock / second, VMClockNsec: s.VMClock % second,
	}
	if s.InstructionCount != format.NoInstructionCount {
		count := int64(s.InstructionCount)
		info.ICount = &count
	}
	return info
}

// exists reports whether a file is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}
