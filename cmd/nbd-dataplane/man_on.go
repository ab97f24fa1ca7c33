//go:build tools

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
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
			return writeManPages(root, args[0])
		},
	})
}

func writeManPages(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(nameArgument)
	}
	// A fixed date: the pages change when their text does.
	date := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: programName, Manual: "User Commands"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("man pages: %w", err)
	}
	return tidyManPages(dir)
}

// nameArgument makes the generator print an option's argument where it prints defaults, which our texts tell.
func nameArgument(flag *pflag.Flag) {
	if flag.DefValue = flag.Value.Type(); flag.NoOptDefVal != "" {
		flag.DefValue = ""
	}
}

// tidyManPages takes away the marks of an optional argument, which no option has.
func tidyManPages(dir string) error {
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		return fmt.Errorf("man pages: %w", err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return fmt.Errorf("man pages: %w", err)
		}
		tidy := strings.NewReplacer("[=]", "", "[=false]", "").Replace(string(text))
		if err := os.WriteFile(page, []byte(tidy), 0o644); err != nil {
			return fmt.Errorf("man pages: %w", err)
		}
	}
	return nil
}
