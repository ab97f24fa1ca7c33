package interop_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// exportInfo is what nbdinfo --json says of one export.
type exportInfo struct {
	Name         string   `json:"export-name"`
	Description  string   `json:"description"`
	Contexts     []string `json:"contexts"`
	Size         int64    `json:"export-size"`
	ReadOnly     bool     `json:"is_read_only"`
	CanCache     bool     `json:"can_cache"`
	CanDF        bool     `json:"can_df"`
	CanFlush     bool     `json:"can_flush"`
	CanFUA       bool     `json:"can_fua"`
	CanMultiConn bool     `json:"can_multi_conn"`
	CanTrim      bool     `json:"can_trim"`
	CanZero      bool     `json:"can_zero"`
	BlockMin     int64    `json:"block_size_minimum"`
	BlockMax     int64    `json:"block_size_maximum"`
}

type serverInfo struct {
	Protocol   string       `json:"protocol"`
	TLS        bool         `json:"TLS"`
	Structured bool         `json:"structured"`
	Exports    []exportInfo `json:"exports"`
}

func nbdinfoJSON(t *testing.T, args ...string) serverInfo {
	t.Helper()
	text := client(t, "nbdinfo", append([]string{"--json"}, args...)...).ok(t)
	var info serverInfo
	require.NoError(t, json.Unmarshal([]byte(text), &info), text)
	require.NotEmpty(t, info.Exports, text)
	return info
}

// Goal: a client learns the truth about an export. Method: nbdinfo's JSON of a writable export is compared field by field.
func TestNbdinfoWritable(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, 64*mib), Name: "disk", Args: []string{"-f", "raw", "--discard=unmap", "-D", "a disk to look at"}})
	info := nbdinfoJSON(t, server.URI())
	require.Equal(t, "newstyle-fixed", info.Protocol)
	require.True(t, info.Structured)
	export := info.Exports[0]
	require.Equal(t, "disk", export.Name)
	require.Equal(t, "a disk to look at", export.Description)
	require.EqualValues(t, 64*mib, export.Size)
	require.False(t, export.ReadOnly)
	require.True(t, export.CanFlush && export.CanFUA && export.CanTrim && export.CanZero && export.CanDF, "%+v", export)
	require.True(t, export.CanMultiConn, "several clients are allowed, and each flush covers all of them")
	require.Contains(t, export.Contexts, "base:allocation")
	require.GreaterOrEqual(t, export.BlockMax, int64(32*mib))
}

// Goal: a read-only export says so and offers nothing that writes. Method: nbdinfo's JSON with -r.
func TestNbdinfoReadOnly(t *testing.T) {
	server := serveRaw(t, sparse(t, mib), "-r")
	export := nbdinfoJSON(t, server.URI()).Exports[0]
	require.True(t, export.ReadOnly)
	require.False(t, export.CanTrim || export.CanZero, "%+v", export)
	client(t, "nbdinfo", "--is", "read-only", server.URI()).ok(t)
}

// Goal: the allocation map shows data and holes where they are. Method: a file with one island of data, mapped by
// nbdinfo over each storage.
func TestNbdinfoMap(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		file := sparse(t, 4*mib)
		island(t, file, mib, mib)
		server := serveRaw(t, file, args...)
		text := client(t, "nbdinfo", "--map", "--json", server.URI()).ok(t)
		var extents []struct {
			Offset, Length int64
			Type           int
		}
		require.NoError(t, json.Unmarshal([]byte(text), &extents), text)
		var got []int64
		for _, e := range extents {
			got = append(got, e.Offset, e.Length, int64(e.Type))
		}
		require.Equal(t, []int64{0, mib, 3, mib, mib, 0, 2 * mib, 2 * mib, 3}, got, text)
	})
}

// island writes a run of bytes into a file.
func island(t *testing.T, file string, offset, length int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt(pattern(int(length)), offset)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
}

// Goal: an export is listed by its name, over TCP too. Method: nbdinfo --list on a TCP port.
func TestNbdinfoList(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, mib), Name: "over tcp", TCP: true, Args: []string{"-f", "raw"}})
	info := nbdinfoJSON(t, "--list", strings.TrimSuffix(server.URI(), "over tcp"))
	require.Equal(t, "over tcp", info.Exports[0].Name)
	require.EqualValues(t, mib, info.Exports[0].Size)
}

// Goal: an export that is not there is refused by name. Method: nbdinfo asks for another one.
func TestNbdinfoUnknownExport(t *testing.T) {
	server := program.Start(t, subject.Options{File: sparse(t, mib), Name: "here", Args: []string{"-f", "raw"}})
	client(t, "nbdinfo", strings.Replace(server.URI(), "here", "elsewhere", 1)).fails(t, "elsewhere")
}

// Goal: tools that start their server by socket activation can start us. Method: nbdinfo -- [ program ... ].
func TestSocketActivation(t *testing.T) {
	file := sparse(t, 2*mib)
	args := append([]string{"--size", "--", "["}, program.Command("-f", "raw", file)...)
	size := client(t, "nbdinfo", append(args, "]")...).ok(t)
	require.Equal(t, "2097152\n", size)
}

// Goal: nothing is promised that is not kept: null exports have a size and flags as any other. Method: nbdinfo on null-co.
func TestNbdinfoNull(t *testing.T) {
	file := "null-co://?size=1M"
	if program.Stock() {
		file = `json:{"driver":"null-co","size":1048576}`
	}
	server := program.Start(t, subject.Options{File: file, Args: []string{}})
	require.EqualValues(t, mib, nbdinfoJSON(t, server.URI()).Exports[0].Size)
}
