package main

import (
	"os"
	"path/filepath"
	"strings"
)

// lockNotes is where notes of locks at NFS servers go: a directory that a restart of this host keeps, and that no other host sees. "" = there is none.
func lockNotes() string {
	const name = "nfs-locks"
	given, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":") // systemd's
	own, home := os.Getenv("XDG_STATE_HOME"), os.Getenv("HOME")
	switch {
	case filepath.IsAbs(given):
		return filepath.Join(given, name)
	case os.Geteuid() == 0:
		return filepath.Join("/var/lib", programName, name)
	case filepath.IsAbs(own):
		return filepath.Join(own, programName, name)
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local", "state", programName, name)
	}
	return ""
}
