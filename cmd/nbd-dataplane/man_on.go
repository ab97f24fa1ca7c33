//go:build tools

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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
	nameArguments(root)
	// A fixed date: the pages change when their text does.
	date := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: programName, Manual: "User Commands"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("man pages: %w", err)
	}
	return tidyManPages(dir)
}

func nameArguments(cmd *cobra.Command) {
	cmd.Flags().VisitAll(nameArgument)
	cmd.PersistentFlags().VisitAll(nameArgument)
	for _, sub := range cmd.Commands() {
		nameArguments(sub)
	}
}

// nameArgument makes the generator print an option's argument where it prints defaults, which our texts tell.
func nameArgument(flag *pflag.Flag) {
	flag.DefValue, flag.Usage = pflag.UnquoteUsage(flag)
	if _, isTable := flag.Value.(*tableFlag); isTable {
		flag.DefValue = flag.Value.Type()
	}
	if flag.NoOptDefVal != "" {
		flag.DefValue = ""
	}
}

// quotedArgument is where the generator takes the name of an argument for a text that is the default.
var quotedArgument = regexp.MustCompile(`(\\fP=)"([^"\n]*)"`)

// tidyManPages takes away the marks of an optional argument, and the quotes of defaults, neither of which there are.
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
		tidy = quotedArgument.ReplaceAllString(tidy, "$1$2")
		if err := os.WriteFile(page, []byte(tidy), 0o644); err != nil {
			return fmt.Errorf("man pages: %w", err)
		}
	}
	return nil
}
