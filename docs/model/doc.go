// Package model holds the drain protocol of blockcore as a model for the checker spin, and the test that runs it: every
// interleaving of loops and control goroutines within small bounds. See README.md.
package model
