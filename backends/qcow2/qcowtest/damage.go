package qcowtest

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
)

// RandomDamage chooses a few words of an image's tables and what to put there. It writes nothing; Apply does.
func RandomDamage(t testing.TB, path string, rng *rand.Rand) []Patch {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := damage{rng: rng, file: file, clusterBits: binary.BigEndian.Uint32(file[20:])}
	patches := make([]Patch, 1+rng.IntN(3))
	for i := range patches {
		patches[i] = entry(d.place(), d.value())
	}
	return patches
}

type damage struct {
	rng         *rand.Rand
	file        []byte
	clusterBits uint32
}

const offsetBits = 0x00fffffffffffe00

func (d *damage) word(at uint64) uint64 {
	if at+8 > uint64(len(d.file)) {
		return 0
	}
	return binary.BigEndian.Uint64(d.file[at:])
}

// place is a word of a table, more often one in use than not.
func (d *damage) place() int64 {
	l1, l1Entries := d.word(40), uint64(binary.BigEndian.Uint32(d.file[36:]))
	table, snapshots := d.word(48), d.word(64)
	within := func(at, words uint64) uint64 {
		for range 20 {
			if place := at + 8*d.rng.Uint64N(max(1, words)); d.word(place) != 0 {
				return place
			}
		}
		return at
	}
	perCluster := uint64(1) << d.clusterBits / 8
	place := l1
	switch d.rng.IntN(8) {
	case 0:
		place = within(l1, l1Entries)
	case 1:
		place = within(table, perCluster)
	case 2:
		place = within(d.word(within(table, perCluster))&offsetBits, perCluster)
	case 3:
		if snapshots != 0 {
			place = within(snapshots, 2)
		}
	default:
		place = within(d.word(within(l1, l1Entries))&offsetBits, perCluster)
	}
	if place+8 > uint64(len(d.file)) {
		place = l1
	}
	return int64(place)
}

// value is a word that is plausible in a table, or nearly so.
func (d *damage) value() uint64 {
	cluster := d.rng.Uint64N(uint64(len(d.file))>>d.clusterBits+2) << d.clusterBits
	switch d.rng.IntN(9) {
	case 0:
		return 0
	case 1:
		return cluster
	case 2:
		return cluster + 512
	case 3:
		return cluster | copied | 1
	case 4:
		return cluster + 1024 | 1
	case 5:
		return 1<<62 | d.rng.Uint64N(uint64(len(d.file))) | d.rng.Uint64N(4)<<(62-(d.clusterBits-8))
	case 6:
		return d.rng.Uint64()
	case 7:
		return cluster | 1<<uint(d.rng.IntN(64))
	}
	return cluster | copied
}
