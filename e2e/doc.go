// Package e2e holds the end-to-end test: a virtual machine uses a disk that we serve, once through Linux's nbd driver
// and once through QEMU's. It is built with the tag e2e only (make e2e); this page is its only untagged file.
package e2e
