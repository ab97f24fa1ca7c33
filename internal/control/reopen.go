package control

import (
	"context"

	"nbd-dataplane/qmp"
)

type reopenArgs struct {
	Options []qmp.Value `qmp:"options"`
}

func (p *Plane) blockdevReopen(ctx context.Context, _ *qmp.Call, a *reopenArgs) (any, error) {
	return nil, qmp.Errorf("blockdev-reopen: pending")
}
