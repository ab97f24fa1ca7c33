package blockcore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	errConflict    = "bps/iops/max total values and read/write values cannot be used at the same time"
	errRange       = "bps/iops/max values must be within [0, 1000000000000000]"
	errLengthZero  = "the burst length cannot be 0"
	errLengthAlone = "burst length set without burst rate"
	errLengthHigh  = "burst length too high for this burst rate"
	errMaxAlone    = "bps_max/iops_max require corresponding bps/iops values"
	errMaxLow      = "bps_max/iops_max cannot be lower than bps/iops"
	errSizeAlone   = "iops size requires an iops value to be set"
)

// validates demands that c is valid, or refused with a message.
func validates(t *testing.T, c ThrottleConfig, want string) {
	t.Helper()
	if want == "" {
		require.NoError(t, c.Validate(), "%+v", c)
		return
	}
	require.EqualError(t, c.Validate(), want, "%+v", c)
}

func TestThrottleConfigEnabled(t *testing.T) {
	// T-T9: the zero value limits nothing; each limit alone is enough to be enabled; a negative one is refused.
	require.False(t, ThrottleConfig{}.Enabled())
	for place := range throttleLimits {
		var c ThrottleConfig
		c.limits()[place].Avg = 150
		require.True(t, c.Enabled())
		validates(t, c, "")
		c.limits()[place].Avg = -150
		validates(t, c, errRange)
	}
}

func TestThrottleConfigConflicts(t *testing.T) {
	// T-T10: a limit in total excludes those of reads and writes, for rates and for bursts; each kind alone is valid.
	for _, first := range []int{bpsTotal, iopsTotal} {
		for _, field := range []func(*ThrottleLimit) *int64{
			func(l *ThrottleLimit) *int64 { return &l.Avg },
			func(l *ThrottleLimit) *int64 { return &l.Max },
		} {
			for set := range 8 { // a bit each for total, read, write
				var c ThrottleConfig
				for i := range 3 {
					if set>>i&1 != 0 {
						*field(c.limits()[first+i]) = 150
					}
				}
				conflict := set&1 != 0 && set&6 != 0
				require.Equal(t, conflict, errorText(c.Validate()) == errConflict, "%+v", c)
			}
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestThrottleConfigValues(t *testing.T) {
	// T-T11, T-T12, T-T13: each limit is checked by itself. A table of rate, burst rate and burst length with QEMU's answer, for
	// each of the six.
	const most = throttleValueMax
	for _, row := range []struct {
		limit ThrottleLimit
		want  string
	}{
		// T-T11
		{ThrottleLimit{}, ""},
		{ThrottleLimit{Avg: 1}, ""},
		{ThrottleLimit{Avg: -1}, errRange},
		{ThrottleLimit{Avg: 1, Max: 1}, ""},
		{ThrottleLimit{Max: -1}, errRange},
		// T-T12
		{ThrottleLimit{Avg: most}, ""},
		{ThrottleLimit{Avg: most, Max: most}, ""},
		{ThrottleLimit{Avg: most + 1}, errRange},
		{ThrottleLimit{Avg: most, Max: most + 1}, errRange},
		{ThrottleLimit{Avg: 1, Max: 1, MaxLength: 1}, ""},
		{ThrottleLimit{Avg: 1, Max: 1, MaxLength: most}, ""},
		{ThrottleLimit{Avg: 1, Max: 1, MaxLength: most + 1}, errLengthHigh},
		{ThrottleLimit{Avg: 1, Max: 2, MaxLength: most / 2}, ""},
		{ThrottleLimit{Avg: 1, Max: 3, MaxLength: most / 2}, errLengthHigh},
		{ThrottleLimit{Avg: 1, Max: most, MaxLength: 1}, ""},
		{ThrottleLimit{Avg: 1, Max: most, MaxLength: 2}, errLengthHigh},
		{ThrottleLimit{Avg: 1, MaxLength: 2}, errLengthAlone},
		{ThrottleLimit{Avg: 1, Max: 1, MaxLength: -1}, "the burst length cannot be negative"},
		// T-T13
		{ThrottleLimit{Max: 100}, errMaxAlone},
		{ThrottleLimit{Avg: 100, Max: 30}, errMaxLow},
		{ThrottleLimit{Avg: 100, Max: 100}, ""},
		{ThrottleLimit{Avg: 100}, ""},
	} {
		for place := range throttleLimits {
			var c ThrottleConfig
			*c.limits()[place] = row.limit
			validates(t, c, row.want)
		}
	}
}

func TestThrottleConfigIOPSSize(t *testing.T) {
	// T-T14: a size of operations without a limit of operations is refused; any of the three is enough.
	validates(t, ThrottleConfig{IOPSSize: 4096}, errSizeAlone)
	validates(t, ThrottleConfig{IOPSSize: 4096, BPSTotal: ThrottleLimit{Avg: 1}}, errSizeAlone)
	validates(t, ThrottleConfig{IOPSSize: -1}, "iops size cannot be negative")
	for _, place := range []int{iopsTotal, iopsRead, iopsWrite} {
		c := ThrottleConfig{IOPSSize: 4096}
		c.limits()[place].Avg = 1
		validates(t, c, "")
	}
}

func TestThrottlePropertiesReachEveryField(t *testing.T) {
	// Each property sets a field of its own and reads it back: all are set to different values, and all is compared. The names are
	// those of QEMU's ThrottleLimits, in its order.
	var c ThrottleConfig
	var names []string
	for i, p := range ThrottleProperties {
		require.NoError(t, p.Set(&c, int64(i+2)))
		require.Equal(t, "x-"+p.Name, p.Legacy)
		names = append(names, p.Name)
	}
	require.Equal(t, []string{
		"iops-total", "iops-total-max", "iops-total-max-length",
		"iops-read", "iops-read-max", "iops-read-max-length",
		"iops-write", "iops-write-max", "iops-write-max-length",
		"bps-total", "bps-total-max", "bps-total-max-length",
		"bps-read", "bps-read-max", "bps-read-max-length",
		"bps-write", "bps-write-max", "bps-write-max-length",
		"iops-size",
	}, names)
	require.Equal(t, ThrottleConfig{
		IOPSTotal: ThrottleLimit{2, 3, 4}, IOPSRead: ThrottleLimit{5, 6, 7}, IOPSWrite: ThrottleLimit{8, 9, 10},
		BPSTotal: ThrottleLimit{11, 12, 13}, BPSRead: ThrottleLimit{14, 15, 16}, BPSWrite: ThrottleLimit{17, 18, 19},
		IOPSSize: 20,
	}, c)
	for i, p := range ThrottleProperties {
		require.EqualValues(t, i+2, p.Value(c), p.Name)
	}
}

func TestThrottlePropertiesRefuseValues(t *testing.T) {
	// T-T12 at the door: burst lengths have a range of their own, and legacy properties take nothing negative. A refused value
	// leaves the config as it was.
	for _, p := range ThrottleProperties {
		c := ThrottleConfig{}
		require.EqualError(t, p.SetLegacy(&c, -1), "Property values cannot be negative")
		if p.length {
			require.EqualError(t, p.Set(&c, 0), errLengthZero)
			require.EqualError(t, p.Set(&c, 1<<32), p.Name+" value must be in the range [0, 4294967295]")
			require.EqualValues(t, 1, p.Value(c), "QEMU shows the default of a burst length")
		}
		require.Zero(t, c)
		require.NoError(t, p.SetLegacy(&c, 1<<32-1))
		require.EqualValues(t, 1<<32-1, p.Value(c))
	}
}
