package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// tableFlag is a row of the option table as pflag sees it.
type tableFlag struct {
	row *option
	o   *options
}

// noArgument is what pflag passes for an option without "=".
const noArgument = "true"

// Set implements pflag.Value.
func (f *tableFlag) Set(v string) error {
	if f.row.arg == "" && v != noArgument {
		return wrong(fmt.Sprintf("--%s takes no argument; leave out '=%s'", f.row.long, v), "")
	}
	return f.o.store(f.row, v)
}

// Type implements pflag.Value.
func (f *tableFlag) Type() string {
	if f.row.arg == "" {
		return "bool"
	}
	return f.row.arg
}

func (f *tableFlag) String() string { return "" }

// addFlags makes rows of the table options of a command. Help is cobra's own.
func addFlags(cmd *cobra.Command, o *options, rows []*option) {
	words := helpWords(doorServe)
	for _, row := range rows {
		if row.long == "help" {
			continue
		}
		short := ""
		if row.short != 0 {
			short = string(row.short)
		}
		flag := cmd.Flags().VarPF(&tableFlag{row, o}, row.long, short, words.Replace(row.help))
		if row.arg == "" {
			flag.NoOptDefVal = noArgument
		}
		flag.Hidden = row.group == groupRefused
		addCompletion(cmd, row)
	}
	cmd.Flags().SortFlags = false
}

func addCompletion(cmd *cobra.Command, row *option) {
	values, directive := row.values, cobra.ShellCompDirectiveNoFileComp
	switch {
	case row.arg == "":
		return
	case len(values) == 1 && values[0] == "FILE":
		values, directive = nil, cobra.ShellCompDirectiveDefault
	case len(values) == 1 && values[0] == "DIR":
		values, directive = nil, cobra.ShellCompDirectiveFilterDirs
	}
	// The only error is that of a flag that does not exist, and this one was just made.
	_ = cmd.RegisterFlagCompletionFunc(row.long, cobra.FixedCompletions(values, directive))
}

// flagError words pflag's errors in our way.
func flagError(cmd *cobra.Command, err error) error {
	see := fmt.Sprintf("; see '%s --help'", cmd.CommandPath())
	var unknown *pflag.NotExistError
	var lacking *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: there is no such option%s", dashed(unknown.GetSpecifiedName(), unknown.GetSpecifiedShortnames()), see)
	case errors.As(err, &lacking):
		return fmt.Errorf("%s needs an argument%s", dashed(lacking.GetSpecifiedName(), lacking.GetSpecifiedShortnames()), see)
	case errors.As(err, &invalid):
		return invalid.Unwrap()
	}
	return fmt.Errorf("%w%s", err, see)
}

func dashed(name, bundle string) string {
	if bundle != "" {
		return "-" + name
	}
	return "--" + name
}
