package offline

// Report is what a check found, with QEMU's names.
type Report struct {
	ImageEndOffset     int64 `json:"image-end-offset"`
	TotalClusters      int64 `json:"total-clusters"`
	CheckErrors        int64 `json:"check-errors"`
	Corruptions        int64 `json:"corruptions"`
	Leaks              int64 `json:"leaks"`
	CorruptionsFixed   int64 `json:"corruptions-fixed"`
	LeaksFixed         int64 `json:"leaks-fixed"`
	AllocatedClusters  int64 `json:"allocated-clusters"`
	FragmentedClusters int64 `json:"fragmented-clusters"`
	CompressedClusters int64 `json:"compressed-clusters"`
}

// Clean reports whether nothing is wrong any more.
func (r *Report) Clean() bool { return r.CheckErrors == 0 && r.Corruptions == 0 && r.Leaks == 0 }

// Repair says what a check may put right.
type Repair uint8

// What may be repaired.
const (
	RepairNothing Repair = iota
	RepairLeaks          // only what takes too much space
	RepairAll
)

// CheckOptions are how to check.
type CheckOptions struct {
	Repair Repair
	// Say is told of each thing found, in QEMU's words and without a newline; nil = nobody.
	Say func(line string)
	// Progress is told now and then how much of the work is done; nil = nobody. An error it returns ends the check.
	Progress func(done, total int64) error
}
