package blockcore

import (
	"errors"
	"fmt"
	"math"
)

// ThrottleDirection tells requests that read from those that change something. Zeroing and discarding count as writes.
type ThrottleDirection int

const (
	ThrottleRead ThrottleDirection = iota
	ThrottleWrite
	throttleDirections
)

func (d ThrottleDirection) String() string { return [throttleDirections]string{"read", "write"}[d] }

// throttleValueMax bounds rates and bursts, as in QEMU: sums of them are exact in a float64.
const throttleValueMax = 1_000_000_000_000_000

// ThrottleLimit is one limit of a group, of bytes or of operations. The zero value does not limit.
type ThrottleLimit struct {
	Avg       int64 // per second in the long run; 0 = no limit
	Max       int64 // per second in bursts; 0 = bursts of what Avg allows in a tenth of a second
	MaxLength int64 // how long a burst at Max may last, seconds; 0 = 1
}

func (l ThrottleLimit) length() int64 { return max(l.MaxLength, 1) }

// ThrottleConfig is what a group allows. The zero value limits nothing.
//
// Analogous to QEMU's ThrottleLimits.
type ThrottleConfig struct {
	BPSTotal, BPSRead, BPSWrite    ThrottleLimit
	IOPSTotal, IOPSRead, IOPSWrite ThrottleLimit

	IOPSSize int64 // a longer request counts as several operations, bytes; 0 = each as one
}

// The places of the limits, in QEMU's order.
const (
	bpsTotal = iota
	bpsRead
	bpsWrite
	iopsTotal
	iopsRead
	iopsWrite
	throttleLimits
)

func (c *ThrottleConfig) limits() [throttleLimits]*ThrottleLimit {
	return [throttleLimits]*ThrottleLimit{
		&c.BPSTotal, &c.BPSRead, &c.BPSWrite,
		&c.IOPSTotal, &c.IOPSRead, &c.IOPSWrite,
	}
}

// Enabled reports whether anything is limited.
func (c ThrottleConfig) Enabled() bool {
	for _, l := range c.limits() {
		if l.Avg > 0 {
			return true
		}
	}
	return false
}

// Validate reports in QEMU's words what is wrong with c.
func (c ThrottleConfig) Validate() error {
	if throttleConflict(c.BPSTotal, c.BPSRead, c.BPSWrite) || throttleConflict(c.IOPSTotal, c.IOPSRead, c.IOPSWrite) {
		return errors.New("bps/iops/max total values and read/write values cannot be used at the same time")
	}
	if c.IOPSSize < 0 {
		return errors.New("iops size cannot be negative")
	}
	if c.IOPSSize > 0 && c.IOPSTotal.Avg == 0 && c.IOPSRead.Avg == 0 && c.IOPSWrite.Avg == 0 {
		return errors.New("iops size requires an iops value to be set")
	}
	for _, l := range c.limits() {
		if err := l.validate(); err != nil {
			return err
		}
	}
	return nil
}

func throttleConflict(total, read, write ThrottleLimit) bool {
	return total.Avg != 0 && (read.Avg != 0 || write.Avg != 0) ||
		total.Max != 0 && (read.Max != 0 || write.Max != 0)
}

func (l ThrottleLimit) validate() error {
	switch {
	case !throttleValue(l.Avg) || !throttleValue(l.Max):
		return fmt.Errorf("bps/iops/max values must be within [0, %d]", throttleValueMax)
	case l.MaxLength < 0:
		return errors.New("the burst length cannot be negative")
	case l.bursts() && l.Max == 0:
		return errors.New("burst length set without burst rate")
	case l.Max != 0 && l.length() > throttleValueMax/l.Max:
		return errors.New("burst length too high for this burst rate")
	case l.Max != 0 && l.Avg == 0:
		return errors.New("bps_max/iops_max require corresponding bps/iops values")
	case l.Max != 0 && l.Max < l.Avg:
		return errors.New("bps_max/iops_max cannot be lower than bps/iops")
	}
	return nil
}

func throttleValue(v int64) bool { return 0 <= v && v <= throttleValueMax }

// ThrottleProperty is one property of a throttle group under the names by which QEMU sets and shows it.
type ThrottleProperty struct {
	Name   string // as a member of "limits"
	Legacy string // as a property of its own, which is set only before the group is complete

	field  func(*ThrottleConfig) *int64
	length bool // of bursts, seconds
}

// ThrottleProperties are all properties, in the order of QEMU's ThrottleLimits.
var ThrottleProperties = throttleProperties()

func throttleProperties() []ThrottleProperty {
	var all []ThrottleProperty
	add := func(name string, length bool, field func(*ThrottleConfig) *int64) {
		all = append(all, ThrottleProperty{Name: name, Legacy: "x-" + name, field: field, length: length})
	}
	for _, row := range [throttleLimits]struct {
		name  string
		place int
	}{
		{"iops-total", iopsTotal}, {"iops-read", iopsRead}, {"iops-write", iopsWrite},
		{"bps-total", bpsTotal}, {"bps-read", bpsRead}, {"bps-write", bpsWrite},
	} {
		add(row.name, false, func(c *ThrottleConfig) *int64 { return &c.limits()[row.place].Avg })
		add(row.name+"-max", false, func(c *ThrottleConfig) *int64 { return &c.limits()[row.place].Max })
		add(row.name+"-max-length", true, func(c *ThrottleConfig) *int64 { return &c.limits()[row.place].MaxLength })
	}
	add("iops-size", false, func(c *ThrottleConfig) *int64 { return &c.IOPSSize })
	return all
}

// Value returns what c has.
func (p ThrottleProperty) Value(c ThrottleConfig) int64 {
	v := *p.field(&c)
	if p.length {
		return max(v, 1)
	}
	return v
}

// Set sets it in c, which is validated once all is set. It refuses what c could not hold, in QEMU's words.
func (p ThrottleProperty) Set(c *ThrottleConfig, v int64) error {
	if p.length && v > math.MaxUint32 {
		return fmt.Errorf("%s value must be in the range [0, %d]", p.Name, uint32(math.MaxUint32))
	}
	if p.length && v == 0 {
		return errors.New("the burst length cannot be 0")
	}
	*p.field(c) = v
	return nil
}

// SetLegacy is Set under the legacy name.
func (p ThrottleProperty) SetLegacy(c *ThrottleConfig, v int64) error {
	if v < 0 {
		return errors.New("Property values cannot be negative")
	}
	return p.Set(c, v)
}
