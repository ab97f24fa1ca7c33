package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"

	"nbd-dataplane/nbd"
)

// listFile decides by the rules in a file as they are now. While the file cannot be read, or makes no sense, it lets nobody
// in. Analogous to QEMU's authz-list-file with refresh=on.
type listFile struct {
	// Immutable.
	path string

	// Guarded by mu.
	mu    sync.Mutex
	seen  os.FileInfo // of the file that rules were read from
	rules nbd.Authorizer
}

// openListFile reads the file at path, and has it read again when it changes if refresh is set.
func openListFile(path string, refresh bool) (nbd.Authorizer, error) {
	l := &listFile{path: lasting(path)}
	rules, err := l.current()
	if err != nil || !refresh {
		return rules, err
	}
	return l, nil
}

// Authorize implements nbd.Authorizer.
func (l *listFile) Authorize(p *nbd.Peer) error {
	rules, err := l.current()
	if err != nil {
		return fmt.Errorf("%w: %w", nbd.ErrDenied, err)
	}
	return rules.Authorize(p)
}

// current returns the rules, read again if the file is another one than before.
func (l *listFile) current() (nbd.Authorizer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, err := os.Stat(l.path)
	if err != nil {
		return nil, fmt.Errorf("authz-list-file: %w", err)
	}
	if l.seen != nil && os.SameFile(l.seen, now) && l.seen.ModTime().Equal(now.ModTime()) && l.seen.Size() == now.Size() {
		return l.rules, nil
	}
	l.seen = nil
	rules, err := readRules(l.path)
	if err != nil {
		return nil, err
	}
	l.seen, l.rules = now, rules
	return rules, nil
}

func readRules(path string) (nbd.Authorizer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authz-list-file: %w", err)
	}
	var list authzFile
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("authz-list-file %s: %w", path, err)
	}
	return list.authorizer()
}
