//go:build tools

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// addManPages adds the command that writes the man pages of all others; see go:generate in man_off.go.
func addManPages(root *cobra.Command) {
	root.AddCommand(&cobra.Command{
		Use:    "man DIR",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return fmt.Errorf("man pages: %w", err)
			}
			root.DisableAutoGenTag = true
			// A fixed date: the pages change when their text does.
			date := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
			return doc.GenManTree(root, &doc.GenManHeader{Title: "NBD-DATAPLANE", Section: "1", Date: &date, Source: programName, Manual: "User Commands"}, args[0])
		},
	})
}
