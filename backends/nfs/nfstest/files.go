package nfstest

import (
	"path"
	"slices"
)

// File is how a file is put onto the server.
type File struct {
	// Contents are its bytes, which are stable. SizeBytes, if it is larger, is how long the file is then.
	Contents  []byte
	SizeBytes int64
	// Mode is 0666 if it is zero, and 0777 for a directory.
	Mode     uint32
	UID, GID uint32
	IsDir    bool
	// LinkTo has it be a symbolic link to that.
	LinkTo string
}

// Put makes a file, or replaces one, whose handles become stale. The directory must be there: "/export/disk.img".
func (s *Server) Put(name string, file File) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, status := s.find(path.Dir(name))
	if status != OK || !dir.isDir {
		s.t.Fatalf("nfstest: %s has no directory", name)
	}
	if old := dir.entries[path.Base(name)]; old != nil {
		old.gone = true
	}
	if file.Mode == 0 && file.IsDir {
		file.Mode = 0o777
	} else if file.Mode == 0 {
		file.Mode = 0o666
	}
	f := s.newInode(dir.export, file.IsDir, file.Mode, file.UID, file.GID)
	f.link = file.LinkTo
	f.put(file.Contents, 0)
	f.contents.truncate(max(file.SizeBytes, int64(len(file.Contents))))
	f.stable, f.unstable = f.contents.copy(), nil
	dir.entries[path.Base(name)] = f
}

// Delete removes a file behind the client's back: its handles are stale.
func (s *Server) Delete(name string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.mustFind(name)
	f.gone = true
	dir, _ := s.find(path.Dir(name))
	delete(dir.entries, path.Base(name))
}

// SetReadOnly has an export refuse changes from now on, or no longer.
func (s *Server) SetReadOnly(exportPath string, readOnly bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustFind(exportPath).export.ReadOnly = readOnly
}

func (s *Server) mustFind(name string) *inode {
	s.t.Helper()
	f, status := s.find(name)
	if status != OK {
		s.t.Fatalf("nfstest: there is no %s", name)
	}
	return f
}

// Stable is what of a file a crash would leave now.
func (s *Server) Stable(name string) []byte {
	s.t.Helper()
	return s.bytesOf(name, func(f *inode) *pages { return &f.stable })
}

// Contents is what READ sees of a file.
func (s *Server) Contents(name string) []byte {
	s.t.Helper()
	return s.bytesOf(name, func(f *inode) *pages { return &f.contents })
}

func (s *Server) bytesOf(name string, which func(*inode) *pages) []byte {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := which(s.mustFind(name))
	all := make([]byte, p.sizeBytes)
	p.read(all, 0)
	return all
}

// UnstableBytes is how many bytes of a file a crash would lose.
func (s *Server) UnstableBytes(name string) int64 {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mustFind(name).unstable.bytes()
}

// Names is what is in a directory, in order.
func (s *Server) Names(dir string) []string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.mustFind(dir).entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Exists is whether there is such a file.
func (s *Server) Exists(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, status := s.find(name)
	return status == OK
}
