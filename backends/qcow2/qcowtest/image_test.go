package qcowtest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Goal: the images are what the harness says they are. Method: each row of the matrix, and random ones, are made, checked
// and compared by qemu-img alone.
func TestImagesAreAsTold(t *testing.T) {
	rows := Matrix()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		rows = append(rows, RandomOptions(rng))
	}
	for n := 0; n < len(rows); n += Stride {
		o := rows[n]
		t.Run(fmt.Sprintf("%d-%s", n, o), func(t *testing.T) {
			t.Parallel()
			Make(t, t.TempDir(), o, uint64(n)).Verify(t)
		})
	}
}
