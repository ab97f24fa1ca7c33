//go:build !tools

package main

import "github.com/spf13/cobra"

//go:generate go run -tags tools . man ../../docs/man

// addManPages adds nothing: the program does not carry what makes its man pages.
func addManPages(*cobra.Command) {}
