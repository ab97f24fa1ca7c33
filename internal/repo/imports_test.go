package repo

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// leaves know nothing of blocks or of NBD. They may import one another; Go itself refuses circles.
var leaves = []string{
	"internal/check",
	"internal/keyval",
	"internal/membuf",
	"internal/pemkey",
	"internal/uring",
}

// mayImport is the map of the house: which packages of ours a package may import. Imports point one way:
// leaves <- blockcore <- backends, nbd, jobs <- internal/control <- cmd. A package that is not here fails the test: its
// author decides where it stands. A name that ends in /... stands for everything below it.
var mayImport = map[string][]string{
	"internal/check":  leaves,
	"internal/keyval": leaves,
	"internal/membuf": leaves,
	"internal/pemkey": leaves,
	"internal/uring":  leaves,
	"internal/nbddev": nil,
	"internal/repo":   nil,

	"blockcore":              leaves,
	"internal/imagelock":     with(leaves, "blockcore"),
	"blockcore/blocktest":    with(leaves, "blockcore"),
	"backends/filters":       with(leaves, "blockcore"),
	"backends/nfs":           with(leaves, "blockcore", "backends/nfs/wire", "internal/imagelock"),
	"backends/nfs/wire":      leaves,
	"backends/null":          with(leaves, "blockcore"),
	"backends/qcow2":         with(leaves, "blockcore", "backends/qcow2/format"),
	"backends/qcow2/format":  leaves,
	"backends/qcow2/offline": with(leaves, "backends/qcow2/format"),
	"backends/qcow2/repair":  with(leaves, "blockcore", "backends/qcow2/format", "backends/qcow2/offline"),
	"backends/raw":           with(leaves, "blockcore", "internal/imagelock"),
	"nbd":                    with(leaves, "blockcore"),

	// Images made by others, for tests; it must not know how ours are read.
	"backends/qcow2/qcowtest": nil,

	// An NFS server for tests; it must not know how our client talks.
	"backends/nfs/nfstest": nil,

	// A world for the block layer, in which nothing is left to chance.
	"internal/sim": with(leaves, "blockcore", "internal/simkit", "backends/filters", "backends/qcow2", "backends/qcow2/offline"),

	// What that world and the one of the NFS driver have in common.
	"internal/simkit": with(leaves, "blockcore"),

	// A protocol that knows nothing of what it controls.
	"qmp":              leaves,
	"internal/control": with(leaves, "blockcore", "nbd", "qmp"),

	// The program is the only place that knows every package.
	"cmd/nbd-dataplane/...": {"blockcore", "backends/...", "nbd", "qmp", "internal/...", "cmd/nbd-dataplane/..."},

	// A model of the code, not code.
	"docs/model": nil,

	// Outside of the house: they start the program and look at it over a socket.
	"internal/bench/...": {"internal/bench/..."},
	// It is to cost less than our driver does, not to know what our driver does not.
	"internal/bench/nfsleast": {"internal/bench/...", "backends/nfs/wire"},
	"interop":                 nil,
	"interop/subject":         nil,
	"interop/verifier":        nil,
	"e2e/...":                 nil,
}

// testsMayImport is what any test may import besides: the conformance suite, the driver that stores nothing, qcow2
// images of others, and the program as a process.
var testsMayImport = []string{"blockcore", "blockcore/blocktest", "backends/null", "backends/qcow2/qcowtest", "backends/nfs/nfstest", "interop/subject", "interop/verifier"}

// testsOfMayImport is what the tests of one package may import besides, each for the reason given.
var testsOfMayImport = map[string][]string{
	"backends/nfs":          {"internal/simkit"},                        // the simulation of the driver
	"backends/filters":      {"backends/raw"},                           // filters are tried over every other backend
	"backends/qcow2":        {"backends/raw", "backends/qcow2/offline"}, // images lie in files, and are checked
	"backends/qcow2/repair": {"backends/raw", "backends/qcow2"},         // whom it works for
}

func with(list []string, more ...string) []string { return append(slices.Clone(list), more...) }

// Goal: imports point one way. Method: every import of a package of ours is looked up in the table above.
func TestImportsFollowTheTable(t *testing.T) {
	for _, file := range sources() {
		allowed, known := rowOf(file.dir())
		if !known {
			t.Errorf("%s: package %s is not in the import table", file.path, file.dir())
			continue
		}
		if file.isTest() {
			allowed = with(allowed, append(testsMayImport, file.dir())...)
			allowed = with(allowed, testsOfMayImport[file.dir()]...)
		}
		for _, spec := range file.tree.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			ours, found := strings.CutPrefix(name, module+"/")
			if found && !covered(allowed, ours) {
				t.Errorf("%s: %s may not import %s", at(spec), file.dir(), ours)
			}
		}
	}
}

// Goal: the table names no package that is gone. Method: each row must match a directory with Go files.
func TestImportTableHasNoDeadRows(t *testing.T) {
	dirs := map[string]bool{}
	for _, file := range sources() {
		dirs[file.dir()] = true
	}
	for row := range mayImport {
		alive := false
		for dir := range dirs {
			alive = alive || covers(row, dir)
		}
		if !alive {
			t.Errorf("the import table names %s, which has no Go files", row)
		}
	}
}

// initFunctions are the files that may have an init function, each for the reason given.
var initFunctions = map[string]string{
	"nbd/request.go": "the table of commands names functions that look into the table: a literal would be a circle",
}

// Goal: drivers are registered in a literal of package main. Method: no file declares an init function, but for those
// listed, which register nothing.
func TestNoInitFunctions(t *testing.T) {
	for _, file := range sources() {
		for _, decl := range functions(file) {
			if decl.Recv == nil && decl.Name.Name == "init" && initFunctions[file.path] == "" {
				t.Errorf("%s: an init function hides who registers what", at(decl))
			}
		}
	}
}

func rowOf(dir string) ([]string, bool) {
	if row, ok := mayImport[dir]; ok {
		return row, true
	}
	for row, allowed := range mayImport {
		if covers(row, dir) {
			return allowed, true
		}
	}
	return nil, false
}

func covered(list []string, dir string) bool {
	return slices.ContainsFunc(list, func(entry string) bool { return covers(entry, dir) })
}

func covers(entry, dir string) bool {
	base, below := strings.CutSuffix(entry, "/...")
	return dir == base || below && strings.HasPrefix(dir, base+"/")
}
