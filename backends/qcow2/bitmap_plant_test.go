package qcow2

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// keptBitmap is what is known of a persistent bitmap of a plant: since when it has been marking. A sector whose stamp is not the one of then has changed.
type keptBitmap struct {
	epochs []bitmapEpoch
}

// bitmapEpoch is a time in which a bitmap is not cleared.
type bitmapEpoch struct {
	begin  int
	stamps []uint64
}

// addBitmaps has qemu-img add the bitmaps of a sort.
func (s sort) addBitmaps(t *testing.T, path string) {
	t.Helper()
	for k := range s.bitmaps {
		tool(t, "qemu-img", "bitmap", "--add", "-g", fmt.Sprint(512<<(2*k)), path, fmt.Sprint("stock", k))
	}
}

// openBitmaps notes the bitmaps that are there in the beginning.
func (p *plant) openBitmaps() {
	p.bitmaps = map[string]*keptBitmap{}
	if p.sort.bitmaps == 0 {
		return
	}
	for name := range storedBitmaps(p.t, p.before.file) {
		p.bitmaps[name] = &keptBitmap{[]bitmapEpoch{{-1, p.stampsBefore()}}}
	}
}

// calmly runs fn without faults.
func (p *plant) calmly(fn func()) {
	armed := p.faults.armed
	p.faults.armed = false
	fn()
	p.faults.armed = armed
}

// now is what the sectors are stamped with, which no fault keeps us from seeing.
func (p *plant) now() (stamps []uint64) {
	p.calmly(func() {
		var err error
		stamps, err = p.look()
		require.NoError(p.t, err)
	})
	return stamps
}

// kept finds a bitmap that can be used, or the first one of all for an empty name.
func (p *plant) kept(name string) *blockcore.Bitmap {
	for _, b := range p.rig.root.Node().Bitmaps().All() {
		if info := b.Info(); info.Persistent && !info.Inconsistent && (name == "" || info.Name == name) {
			return b
		}
	}
	return nil
}

// touch writes something at a sector, or before it where the disk is that short, and flushes.
func (p *plant) touch(first int64) error {
	return errors.Join(p.do(work{workWrite, min(first, p.sectors()-1), min(9, max(p.sectors()-first, 1))}, flushed)...)
}

// changeKept is what comes before a change of a bitmap.
func (p *plant) changeKept() error { return p.rig.ctx.Do(p.rig.image.ChangeKept) }

// addBitmap adds a persistent bitmap, unless it is there.
func (p *plant) addBitmap(name string, granularityBits uint) {
	if p.rig.root.Node().Bitmaps().Find(name) != nil {
		return
	}
	require.NoError(p.t, p.rig.ctx.Do(func(t *blockcore.Task) error { return p.rig.image.MayKeep(t, name, granularityBits) }))
	p.bitmaps[name] = &keptBitmap{[]bitmapEpoch{{p.h.tick(), p.now()}}}
	_, err := p.rig.root.Node().Bitmaps().Add(name, granularityBits, blockcore.BitmapState{Enabled: true, Persistent: true})
	require.NoError(p.t, err)
}

// addAndStore has a bitmap be stored that was not there.
func (p *plant) addAndStore() error {
	p.addBitmap("new", 10)
	return errors.Join(p.touch(30), p.close())
}

func (p *plant) removeBitmap(b *blockcore.Bitmap) error {
	if b == nil {
		return nil
	}
	require.NoError(p.t, b.AcquireFor(blockcore.BitmapRemove))
	defer b.Release()
	err := p.rig.ctx.Do(func(t *blockcore.Task) error { return p.rig.image.DropKept(t, b.Name()) })
	if err == nil {
		b.Forget()
	}
	return err
}

func (p *plant) removeOneBitmap() error { return p.removeBitmap(p.kept("")) }

func (p *plant) removeAllBitmaps() error {
	for _, b := range p.rig.root.Node().Bitmaps().All() {
		if err := p.removeBitmap(b); err != nil {
			return err
		}
	}
	return p.touch(30)
}

// removeLostBitmaps takes away what nobody can use any more; it keeps a disk from getting another length.
func (p *plant) removeLostBitmaps() error {
	for _, b := range p.rig.root.Node().Bitmaps().All() {
		if !b.Info().Inconsistent {
			continue
		}
		if err := p.removeBitmap(b); err != nil {
			return err
		}
	}
	return nil
}

// alterBitmaps does one thing to the bitmaps.
func (p *plant) alterBitmaps() error {
	if p.sort.bitmaps == 0 {
		return nil
	}
	if len(p.rig.root.Node().Bitmaps().All()) < bitmapsMax {
		p.addBitmap(fmt.Sprint("live", p.h.tick(), "-", p.stamp>>32), uint(9+p.random.IntN(5)))
	}
	all := []func() error{p.removeOneBitmap, p.clearBitmap, p.restBitmap, p.removeLostBitmaps, func() error { return nil }}
	return all[p.random.IntN(len(all))]()
}

// bitmapsMax is how many live at once.
const bitmapsMax = 4

func (p *plant) clearBitmap() error {
	b := p.kept("")
	if b == nil {
		return nil
	}
	if err := p.changeKept(); err != nil {
		return err
	}
	k := p.bitmaps[b.Name()]
	k.epochs = append(k.epochs, bitmapEpoch{p.h.tick(), p.now()})
	_, drop, err := b.Clear()
	require.NoError(p.t, err)
	drop()
	return p.touch(30)
}

// mergeBitmaps has what is marked in one bitmap be marked in another one, which is cleared before: it knows then what the first one does.
func (p *plant) mergeBitmaps() error {
	from, to := p.kept("stock0"), p.kept("stock1")
	if from == nil || to == nil {
		return nil
	}
	if err := p.changeKept(); err != nil {
		return err
	}
	_, drop, err := to.Clear()
	require.NoError(p.t, err)
	drop()
	_, drop, err = to.Merge(from)
	require.NoError(p.t, err)
	drop()
	return p.touch(30)
}

// restBitmap has a bitmap miss some writes on purpose: it begins anew after them.
func (p *plant) restBitmap() error {
	b := p.kept("")
	if b == nil {
		return nil
	}
	enable := func(enabled bool) error {
		if err := p.changeKept(); err != nil {
			return err
		}
		_, err := b.Enable(enabled)
		require.NoError(p.t, err)
		return nil
	}
	if err := enable(false); err != nil {
		return err
	}
	err := p.touch(50)
	k := p.bitmaps[b.Name()]
	k.epochs = append(k.epochs, bitmapEpoch{p.h.tick(), p.now()})
	if err := errors.Join(err, enable(true)); err != nil {
		p.calmly(func() { require.NoError(p.t, enable(true)) })
		return err
	}
	return p.touch(30)
}

// crashAndOpen opens an image whose bitmaps were in use when its user died. Everything was flushed.
func (p *plant) crashAndOpen() error {
	p.calmly(func() {
		require.NoError(p.t, p.touch(30))
		require.NoError(p.t, errors.Join(p.do(flushed)...)) // touch flushes beside the write
		crashed := append([]byte(nil), p.file.bytes...)
		require.NoError(p.t, p.close())
		p.file.become(crashed)
		require.NoError(p.t, p.mendDirty())
	})
	err := p.open()
	if err == nil && p.sort.bitmaps > 0 {
		for _, b := range p.rig.root.Node().Bitmaps().All() {
			require.True(p.t, b.Info().Inconsistent, b.Name())
		}
	}
	return err
}

// judgeBitmaps looks whether an image claims of a bitmap that it is right while a change is missing. stamps are those of the sectors.
func (p *plant) judgeBitmaps(file []byte, stamps []uint64, at int) {
	p.t.Helper()
	if p.sort.bitmaps == 0 {
		return
	}
	for name, s := range storedBitmaps(p.t, file) {
		if s.inUse {
			continue
		}
		k := p.bitmaps[name]
		require.NotNil(p.t, k, name)
		missing := ""
		for n := len(k.epochs) - 1; n >= 0; n-- {
			if e := &k.epochs[n]; e.begin <= at {
				if missing = p.missing(&s, e, stamps); missing == "" {
					break
				}
			}
		}
		if missing != "" {
			require.FailNow(p.t, "a bitmap is trusted that is wrong", "moment %d, bitmap %s: %s", at, name, missing)
		}
	}
}

// visibleBitmaps looks whether the bitmaps of an image that is open miss a change.
func (p *plant) visibleBitmaps() {
	p.t.Helper()
	stamps := p.now()
	for _, b := range p.rig.root.Node().Bitmaps().All() {
		info := b.Info()
		if info.Inconsistent {
			continue
		}
		s := storedBitmap{granularityBits: uint8(info.GranularityBits)}
		lengths, marked := b.Status(blockcore.Range{Length: p.rig.image.Size()}, 1<<20)
		bits := ""
		for _, n := range lengths {
			bit := map[bool]string{false: "\x00", true: "\x01"}[marked]
			bits += strings.Repeat(bit, int((n+1<<info.GranularityBits-1)>>info.GranularityBits))
			marked = !marked
		}
		s.bits = bits
		epochs := p.bitmaps[info.Name].epochs
		require.Empty(p.t, p.missing(&s, &epochs[len(epochs)-1], stamps), "not marked in %s", info.Name)
	}
}

// missing names a sector that has changed and is not marked. Those that were cut off once are not looked at: they may be new.
func (p *plant) missing(s *storedBitmap, e *bitmapEpoch, stamps []uint64) string {
	n := int64(min(len(stamps), len(e.stamps)))
	for _, z := range p.h.sizes {
		if z.end != 0 {
			n = min(n, z.sectors)
		}
	}
	for k := range n {
		if bit := k * format.SectorBytes >> s.granularityBits; stamps[k] != e.stamps[k] && s.bits[bit] == 0 {
			return fmt.Sprintf("sector %d", k)
		}
	}
	return ""
}

// closeKeeping closes the image, and looks whether all bitmaps are kept that could be.
func (p *plant) closeKeeping() {
	p.t.Helper()
	var names []string
	for _, b := range p.rig.root.Node().Bitmaps().All() {
		if info := b.Info(); info.Persistent && !info.Inconsistent {
			names = append(names, info.Name)
		}
	}
	stamps := p.now()
	require.NoError(p.t, p.close())
	stored := storedBitmaps(p.t, p.file.bytes)
	for _, name := range names {
		s, is := stored[name]
		require.True(p.t, is && !s.inUse, "%s: %v %v", name, is, s.inUse)
	}
	p.judgeBitmaps(p.file.bytes, stamps, p.h.now)
}

// become gives the disk other contents, for good and at one moment: no power cut sees half of it.
func (m *memory) become(p []byte) {
	was := m.Size()
	m.bytes = append([]byte(nil), p...)
	before, after := m.h.tick(), m.h.tick()
	at := interval{begin: after, end: before}
	m.writes = append(m.writes, diskWrite{interval: at, off: int64(len(p)), was: was}, diskWrite{interval: at, data: append([]byte{}, p...)})
	m.syncs = append(m.syncs, interval{after, after})
}
