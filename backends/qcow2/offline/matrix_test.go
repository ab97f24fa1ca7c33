package offline

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: images of every kind that QEMU makes get its figures. Method: both check the rows of the matrix and random ones.
func TestImagesOfQEMUAreJudgedAsByQEMU(t *testing.T) {
	rows := qcowtest.Matrix()
	rng := rand.New(rand.NewPCG(2, 2))
	for range 20 {
		rows = append(rows, qcowtest.RandomOptions(rng))
	}
	for n := 0; n < len(rows); n += qcowtest.Stride {
		o := rows[n]
		t.Run(fmt.Sprintf("%d-%s", n, o), func(t *testing.T) {
			t.Parallel()
			im := qcowtest.Make(t, t.TempDir(), o, uint64(n)+100)
			if diff := sameVerdict(qcowtest.StockVerdict(t, im.Path, ""), verdict(t, im.Path, RepairNothing)); diff != "" {
				t.Errorf("qemu-img (-) and we (+):\n%s", diff)
			}
		})
	}
}

// Goal: damage of any kind gets QEMU's verdict, and a repair never leaves more than QEMU's. Method: words of tables are replaced by
// others in random images; both check, repair, and QEMU looks at what is left.
func TestDamagedImagesAreJudgedAsByQEMU(t *testing.T) {
	for seed := uint64(0); seed < damagedSeeds; seed += qcowtest.Stride {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 60))
			o := qcowtest.RandomOptions(rng)
			o.SizeBytes = min(o.SizeBytes, 2<<20)
			im := qcowtest.Make(t, t.TempDir(), o, seed)
			patches := qcowtest.RandomDamage(t, im.Path, rng)
			t.Logf("%s: %x", o, patches)
			qcowtest.Apply(t, im.Path, patches)
			judgeDamaged(t, im.Path, len(patches))
		})
	}
}

const damagedSeeds = 60

func judgeDamaged(t *testing.T, path string, patches int) {
	stock := qcowtest.StockVerdict(t, path, "")
	if diff := sameVerdict(stock, verdict(t, path, RepairNothing)); diff != "" {
		t.Errorf("check: qemu-img (-) and we (+):\n%s", diff)
	}
	for _, repair := range []struct {
		name string
		what Repair
	}{{"leaks", RepairLeaks}, {"all", RepairAll}} {
		copied := copyOf(t, path)
		qcowtest.StockVerdict(t, copied, repair.name)
		theirs := qcowtest.StockVerdict(t, copied, "")
		copied = copyOf(t, path)
		verdict(t, copied, repair.what)
		ours := qcowtest.StockVerdict(t, copied, "")
		if repair.what == RepairLeaks && stock.Status != onlyLeaks {
			continue // then tables are in each other's place, and what is left is anybody's guess
		}
		if patches > 1 && left(theirs) < left(stock) {
			theirs = stock // the same, but it must not become worse
		}
		if left(ours) > left(theirs) && !strings.Contains(ours.Said, "Table is not cluster aligned") {
			t.Errorf("-r %s: QEMU's leaves\n%+v\nand ours\n%+v", repair.name, theirs, ours)
		}
	}
}

const onlyLeaks = 3

// left is how much a repair left, the worst first.
func left(v qcowtest.Verdict) int64 {
	if gaveUp(v) {
		return 1 << 40
	}
	return v.Figures.CheckErrors<<30 + v.Figures.Corruptions<<12 + v.Figures.Leaks
}

// copyOf copies an image to where its data and backing files are.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(path), "copy.qcow2")
	if err := os.WriteFile(copied, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
