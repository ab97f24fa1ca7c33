// Package e2e holds the end-to-end tests: a virtual machine uses a disk that we serve, once through Linux's nbd driver
// and once through QEMU's; the disk is resized under it, both ways; and one that serves a disk itself has its power cut. They are
// built with the tag e2e only (make e2e); this page is the package's only untagged file.
package e2e
