package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// snapshotNameMax is the longest name of an internal snapshot, in bytes: QEMU, which has room for as many, would cut it off.
const snapshotNameMax = 255

type internalSnapshotArgs struct {
	Device string `qmp:"device"`
	Name   string `qmp:"name"`
}

// internalSnapshot keeps a disk as it is inside of its image.
func (p *Plane) internalSnapshot(ctx context.Context, _ *qmp.Call, a *internalSnapshotArgs) (any, error) {
	return nil, p.transact(ctx, []action{&internalSnapshotAction{args: *a}})
}

type internalSnapshotAction struct {
	args internalSnapshotArgs
	disk keeper
	left error // why the snapshot is still there although the transaction has failed
}

// keeper is a node with the one below it that keeps its snapshots: itself, or what filters are above of.
type keeper struct {
	top, node *blockcore.Node
}

// keeper finds the node for a command. There is nobody but owners above it.
func (p *Plane) keeper(device string) (k keeper, err error) {
	if k.top, err = p.either(device); err != nil {
		return k, err
	}
	for _, e := range k.top.Parents() {
		if above, _ := e.User(); above != nil {
			return k, qmp.Errorf("Need a root block node")
		}
	}
	return keeperBelow(k.top), nil
}

func keeperBelow(n *blockcore.Node) keeper {
	k := keeper{n, n}
	for k.node.Features().Filter && len(k.node.Children()) == 1 {
		k.node = k.node.Children()[0].Node()
	}
	return k
}

// nodes are those from the top to the one that keeps the snapshots.
func (k keeper) nodes() []*blockcore.Node {
	all := []*blockcore.Node{k.top}
	for n := k.top; n != k.node && len(n.Children()) == 1; {
		n = n.Children()[0].Node()
		all = append(all, n)
	}
	return all
}

// expectMax bounds how long what a snapshot can do ahead is waited for.
const expectMax = 5 * time.Second

// drained has the image get ready as well, for clients to stand still for a shorter time.
func (s *internalSnapshotAction) drained(ctx context.Context, p *Plane) (_ []*blockcore.Node, err error) {
	if s.disk, err = p.keeper(s.args.Device); err != nil {
		return nil, err
	}
	s.expect(ctx, true)
	return s.disk.nodes(), nil
}

func (s *internalSnapshotAction) change(p *Plane, tx *blockcore.Tx, d *blockcore.Drained) error {
	if _, err := p.keeper(s.args.Device); err != nil { // an action before this one may have put an overlay on top
		return err
	}
	if err := p.keepsSnapshots(s.disk, s.args.Device); err != nil {
		return err
	}
	switch {
	case s.args.Name == "":
		return qmp.Errorf("Name is empty")
	case len(s.args.Name) > snapshotNameMax:
		return qmp.Errorf("Name is longer than %d bytes", snapshotNameMax)
	}
	if err := listable(s.disk.node); err != nil {
		return err
	}
	err := tx.CreateSnapshot(d, s.disk.node, blockcore.NewSnapshot{
		Name: s.args.Name, Taken: time.Now(), May: s.isNew, Undone: func(err error) { s.left = err },
	})
	var refused *qmp.Error
	switch {
	case errors.As(err, &refused):
		return refused
	case err != nil:
		return s.failed(err)
	}
	return nil
}

// failed is an error of the disk, or of the image, as QEMU tells it.
func (s *internalSnapshotAction) failed(err error) error {
	return refusedDoing(fmt.Sprintf("Failed to create snapshot '%s' on device '%s'", s.args.Name, s.args.Device), err)
}

// isNew refuses a name that is taken.
func (s *internalSnapshotAction) isNew(all []blockcore.Snapshot) error {
	if slices.ContainsFunc(all, func(old blockcore.Snapshot) bool { return old.Name == s.args.Name }) {
		return qmp.Errorf("Snapshot with name '%s' already exists on device '%s'", s.args.Name, s.args.Device)
	}
	return nil
}

func (s *internalSnapshotAction) expect(ctx context.Context, expected bool) {
	ctx, cancel := context.WithTimeout(ctx, expectMax)
	defer cancel()
	s.disk.node.ExpectSnapshot(ctx, expected)
}

func (s *internalSnapshotAction) abort(*Plane) error {
	if s.disk.node != nil {
		s.expect(context.Background(), false)
	}
	if s.left == nil {
		return nil
	}
	return qmp.Errorf("snapshot '%s' on device '%s': %v", s.args.Name, s.args.Device, s.left)
}

// keepsSnapshots refuses disks that cannot have any.
func (p *Plane) keepsSnapshots(k keeper, device string) error {
	if !k.node.Writable() {
		return qmp.Errorf("Device '%s' is read only", device)
	}
	if !k.node.KeepsSnapshots() {
		driver, _ := p.describe(k.top)
		return qmp.Errorf("Block format '%s' used by device '%s' does not support internal snapshots", driver, device)
	}
	return nil
}

// listable refuses images that can have no snapshots, since their data is in a file of its own.
func listable(n *blockcore.Node) error {
	if childOf(n, blockcore.RoleData) != nil {
		return listFailed(syscall.ENOTSUP)
	}
	return nil
}

func listFailed(err error) error {
	if errors.Is(err, syscall.ENOTSUP) {
		return qmp.Errorf("Failed to get a snapshot list: Operation not supported")
	}
	return qmp.Errorf("Failed to get a snapshot list: %v", err)
}

type oldSnapshotArgs struct {
	Device string  `qmp:"device"`
	ID     *string `qmp:"id"`
	Name   *string `qmp:"name"`
}

// snapshotInfo is a snapshot as monitors know it.
type snapshotInfo struct {
	ID           string  `json:"id"`
	Name         string  `json:"name"`
	VMStateBytes uint64  `json:"vm-state-size"`
	Seconds      int64   `json:"date-sec"`
	Nanoseconds  int     `json:"date-nsec"`
	ClockSec     int64   `json:"vm-clock-sec"`
	ClockNsec    int64   `json:"vm-clock-nsec"`
	ICount       *uint64 `json:"icount,omitempty"`
}

func describeSnapshot(s *blockcore.Snapshot) snapshotInfo {
	info := snapshotInfo{
		ID: s.ID, Name: s.Name, VMStateBytes: s.VMStateBytes, Seconds: s.Taken.Unix(), Nanoseconds: s.Taken.Nanosecond(),
		ClockSec: int64(s.VMClock / time.Second), ClockNsec: int64(s.VMClock % time.Second),
	}
	if s.Counted {
		info.ICount = &s.Instructions
	}
	return info
}

// find finds the snapshot that is meant, when nobody changes anything.
func (a *oldSnapshotArgs) find(n *blockcore.Node) (*blockcore.Snapshot, error) {
	if err := listable(n); err != nil {
		return nil, err
	}
	all, err := n.Snapshots()
	if err != nil {
		return nil, listFailed(err)
	}
	for i := range all {
		s := &all[i]
		if (a.ID == nil || s.ID == *a.ID) && (a.Name == nil || s.Name == *a.Name) {
			return s, nil
		}
	}
	text := func(s *string) string {
		if s == nil {
			return "null"
		}
		return *s
	}
	return nil, qmp.Errorf("Snapshot with id '%s' and name '%s' does not exist on device '%s'", text(a.ID), text(a.Name), a.Device)
}

// old changes a snapshot that is there, and tells what it was.
func (p *Plane) old(ctx context.Context, why string, a *oldSnapshotArgs, change func(*blockcore.Tx, *blockcore.Drained, keeper, *blockcore.Snapshot) error) (any, error) {
	k, err := p.keeper(a.Device)
	switch {
	case err != nil:
		return nil, err
	case a.ID == nil && a.Name == nil:
		return nil, qmp.Errorf("Name or id must be provided")
	}
	var was *blockcore.Snapshot
	err = p.during(ctx, p.flushedOptions(why+" "+a.Device, k.nodes()...), func(tx *blockcore.Tx, d *blockcore.Drained) (err error) {
		if was, err = a.find(k.node); err != nil {
			return err
		}
		if err := p.keepsSnapshots(k, a.Device); err != nil {
			return err
		}
		return change(tx, d, k, was)
	})
	if err != nil {
		return nil, err
	}
	return describeSnapshot(was), nil
}

// deleteInternalSnapshot gives up a snapshot.
func (p *Plane) deleteInternalSnapshot(ctx context.Context, _ *qmp.Call, a *oldSnapshotArgs) (any, error) {
	result, err := p.old(ctx, "delete a snapshot of", a, func(tx *blockcore.Tx, d *blockcore.Drained, k keeper, s *blockcore.Snapshot) error {
		return tx.DeleteSnapshot(d, k.node, s.ID)
	})
	return result, refusedBy(err, "Failed to remove snapshot from snapshot list")
}
