package control

import (
	"time"

	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

const (
	// pauseDefaultSeconds is what Linux gives a SCSI disk before it resets it.
	pauseDefaultSeconds = 30
	// pauseMaxSeconds bounds a pause as it does a lease.
	pauseMaxSeconds = leaseMaxSeconds
)

// farewellOptions say what clients meet when their export goes.
type farewellOptions struct {
	Farewell string `qmp:"x-farewell,optional,enum=restart|retire|pause|cut"`
	Pause    *int64 `qmp:"x-pause"`
}

// farewell reads them; otherwise is what they meet when nothing is said.
func (o *farewellOptions) farewell(otherwise nbd.Farewell) (nbd.Farewell, error) {
	seconds := int64(pauseDefaultSeconds)
	if o.Pause != nil {
		seconds = *o.Pause
	}
	switch {
	case o.Pause != nil && o.Farewell != "pause":
		return otherwise, qmp.Errorf("Parameter 'x-pause' goes with x-farewell=pause")
	case seconds < 1 || seconds > pauseMaxSeconds:
		return otherwise, qmp.Expects("x-pause", "a number of seconds from 1 to 3600")
	}
	switch o.Farewell {
	case "restart":
		return nbd.FarewellRestart, nil
	case "retire":
		return nbd.FarewellRetire, nil
	case "cut":
		return nbd.FarewellCut, nil
	case "pause":
		return nbd.FarewellPause(time.Duration(seconds) * time.Second), nil
	}
	return otherwise, nil
}
