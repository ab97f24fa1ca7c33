package server

import (
	"slices"
	"strings"
)

// AtRevision is one of our kinds built from another revision of this repository, by a name such as nbd-dataplane@v1 or
// nbd-dataplane@5927d3e.
func AtRevision(name string) (k Kind, ok bool) {
	of, revision, found := strings.Cut(name, "@")
	known := Known()
	i := slices.IndexFunc(known, func(k Kind) bool { return k.Ours && k.Name == of })
	if !found || i < 0 || revision == "" || strings.HasPrefix(revision, "-") {
		return Kind{}, false
	}
	now := known[i]
	k = now
	k.Name, k.Revision, k.RevisionOf = name, revision, of
	k.Ours, k.Default = false, false
	k.commandLine = func(s Setup) ([]string, error) {
		s.Programs.Ours = s.Programs.Revisions[revision]
		return now.commandLine(s)
	}
	return k, true
}
