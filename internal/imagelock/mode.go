package imagelock

import "fmt"

// Mode says whether image locks are taken.
type Mode uint8

// The modes, by QEMU's names.
const (
	Auto Mode = iota // where the file system or the server has them, else warn
	On               // or fail
	Off
)

// modeNames are in the order of Mode.
var modeNames = [...]string{"auto", "on", "off"}

// Known reports whether there is such a mode.
func (m Mode) Known() bool { return int(m) < len(modeNames) }

func (m Mode) String() string { return modeNames[m] }

// ParseMode reads one of QEMU's names.
func ParseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return Auto, fmt.Errorf("locking mode %q: use auto, on or off", s)
}
