package nbd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"nbd-dataplane/internal/check"
)

// The file of Offers is JSON that people may read, and from which they may take an export away that is to be forgotten:
//
//	{"version": 1, "exports": [
//	 {"name": "disk", "size": 1048576, "writable": true, "abilities": ["FLUSH", "FUA"], "min-block": 1}
//	]}
//
// The export that has not been offered for the longest time stands first. What is not exactly that is refused: half a memory would
// let through what it is there to stop.

// offersVersion is what we write and understand.
const offersVersion = 1

// offersFileMax bounds what is read, in bytes: names at their limit, each byte written as \u00XX, and the rest of the records.
const offersFileMax = 6*offersNamesMax + 512*offersMax

// offersDocument is the file.
type offersDocument struct {
	Version *int          `json:"version"`
	Exports []offerRecord `json:"exports"`
}

// offerRecord is one export there. Pointers tell what is missing from what is zero.
type offerRecord struct {
	Name      *string  `json:"name"`
	Size      *uint64  `json:"size"`
	Writable  *bool    `json:"writable"`
	Abilities []string `json:"abilities"`
	MinBlock  *uint32  `json:"min-block"`
}

// record is an offer with its name.
type record struct {
	name string
	offer
}

// ability is a flag by its name in the file.
type ability struct {
	name string
	flag TransmissionFlags
}

// abilities are the names of the flags that are guarded. NBD proto.md, "Transmission flags".
var abilities = []ability{
	{"FLUSH", FlagSendFlush},
	{"FUA", FlagSendFUA},
	{"TRIM", FlagSendTrim},
	{"WRITE_ZEROES", FlagSendWriteZeroes},
	{"DF", FlagSendDF},
	{"CACHE", FlagSendCache},
	{"FAST_ZERO", FlagSendFastZero},
}

// records lists what is remembered, in the order of the file. o.mu is held.
func (o *Offers) records() []record {
	var list []record
	for _, name := range o.inOrder() {
		list = append(list, record{name, o.byName[name].offer})
	}
	return list
}

func encodeOffers(list []record) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"version\": %d, \"exports\": [", offersVersion)
	for i, r := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		names := []string{}
		for _, a := range abilities {
			if r.flags&a.flag != 0 {
				names = append(names, a.name)
			}
		}
		writable := r.flags&FlagReadOnly == 0
		line, err := json.Marshal(offerRecord{&r.name, &r.size, &writable, names, &r.minBlock})
		check.Invariant(err == nil, "an offer has no text: %v", err)
		b.WriteString("\n ")
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes()
}

// decodeOffers reads a file.
func decodeOffers(text []byte) ([]record, error) {
	if len(text) > offersFileMax {
		return nil, fmt.Errorf("damaged: more than %d bytes", offersFileMax)
	}
	var document offersDocument
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&document); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("damaged: something stands behind the end, at byte %d", d.InputOffset())
	}
	switch {
	case document.Version == nil || document.Exports == nil:
		return nil, errors.New("damaged: it has no version, or no exports")
	case *document.Version != offersVersion:
		return nil, fmt.Errorf("it is of version %d, and this program knows version %d", *document.Version, offersVersion)
	case len(document.Exports) > offersMax:
		return nil, fmt.Errorf("damaged: %d exports, %d are the limit", len(document.Exports), offersMax)
	}
	return readRecords(document.Exports)
}

func readRecords(records []offerRecord) ([]record, error) {
	var list []record
	seen := map[string]bool{}
	names := 0
	for i, r := range records {
		one, err := r.read()
		if err == nil && seen[one.name] {
			err = errors.New("it is there twice")
		}
		if names += len(one.name); err == nil && names > offersNamesMax {
			err = fmt.Errorf("the names have more than %d bytes", offersNamesMax)
		}
		if err != nil {
			return nil, fmt.Errorf("damaged: export %d: %w", i+1, err)
		}
		seen[one.name] = true
		list = append(list, one)
	}
	return list, nil
}

// read is a record that makes sense, or why it does not.
func (r *offerRecord) read() (record, error) {
	if r.Name == nil || r.Size == nil || r.Writable == nil || r.Abilities == nil || r.MinBlock == nil {
		return record{}, errors.New("one of name, size, writable, abilities and min-block is missing")
	}
	if err := checkString(*r.Name); err != nil {
		return record{}, fmt.Errorf("name: %w", err)
	}
	switch {
	case *r.Size > math.MaxInt64:
		return record{}, fmt.Errorf("size %d", *r.Size)
	case bits.OnesCount32(*r.MinBlock) != 1 || *r.MinBlock > minBlockMax:
		return record{}, fmt.Errorf("min-block %d", *r.MinBlock)
	}
	one := record{*r.Name, offer{size: *r.Size, minBlock: *r.MinBlock}}
	if !*r.Writable {
		one.flags |= FlagReadOnly
	}
	for _, name := range r.Abilities {
		at := slices.IndexFunc(abilities, func(a ability) bool { return a.name == name })
		if at < 0 {
			return record{}, fmt.Errorf("ability %s", shown(name))
		}
		one.flags |= abilities[at].flag
	}
	return one, nil
}
