package main

import (
	"fmt"
	"strings"
)

// getopt reads a command line as getopt_long(3) does for qemu-nbd: options and file names in any order, short options
// bundled, long ones abbreviated as far as they stay unambiguous, "--" ending the options. It exists besides pflag because
// pflag knows no abbreviations, and because scripts see these very messages.
type getopt struct {
	rows    []*option
	o       *options
	program string   // as it was called; the messages begin with it
	args    []string // not yet read
	before  []string // args when the option that is being read began
	// wrong makes an error of the C library's message.
	wrong func(text string) error
}

// parseQEMU reads qemu-nbd's command line, program name and all.
func parseQEMU(argv []string) (*options, error) {
	g := &getopt{rows: optionsAt(doorQEMU), o: defaultsOf(doorQEMU), program: argv[0], args: argv[1:]}
	g.o.calledAs, g.wrong = g.program, g.wrongAndTry
	for len(g.args) > 0 {
		if err := g.next(); err != nil {
			return g.o, err
		}
	}
	return g.o, nil
}

func (g *getopt) next() error {
	arg := g.args[0]
	g.before, g.args = g.args, g.args[1:]
	switch {
	case arg == "--":
		g.o.files = append(g.o.files, g.args...)
		g.args = nil
		return nil
	case strings.HasPrefix(arg, "--"):
		return g.long(arg[2:])
	case len(arg) > 1 && arg[0] == '-':
		return g.bundle(arg[1:])
	}
	g.o.files = append(g.o.files, arg)
	return nil
}

func (g *getopt) long(text string) error {
	name, value, hasValue := strings.Cut(text, "=")
	row, err := g.find(name, text)
	switch {
	case err != nil:
		return err
	case row.arg == "" && hasValue:
		return g.wrongf("option '--%s' doesn't allow an argument", row.long)
	case row.arg != "" && !hasValue:
		if len(g.args) == 0 {
			return g.wrongf("option '--%s' requires an argument", row.long)
		}
		value, g.args = g.args[0], g.args[1:]
	}
	return g.o.store(row, value)
}

// find looks up a long name or its unambiguous beginning; text is the whole word, for messages.
func (g *getopt) find(name, text string) (*option, error) {
	var found []*option
	for _, row := range g.rows {
		if row.long == name {
			return row, nil
		}
		if strings.HasPrefix(row.long, name) {
			found = append(found, row)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, g.wrongf("unrecognized option '--%s'", text)
	}
	var all strings.Builder
	for _, row := range found {
		fmt.Fprintf(&all, " '--%s'", row.long)
	}
	return nil, g.wrongf("option '--%s' is ambiguous; possibilities:%s", text, all.String())
}

// bundle reads short options. The rest of the word is the argument of one that takes one.
func (g *getopt) bundle(letters string) error {
	for n := range len(letters) {
		row := g.letter(letters[n])
		switch {
		case row == nil:
			return g.wrongf("invalid option -- '%c'", letters[n])
		case row.arg == "":
			if err := g.o.store(row, ""); err != nil {
				return err
			}
			continue
		case n+1 < len(letters):
			return g.o.store(row, letters[n+1:])
		case len(g.args) == 0:
			return g.wrongf("option requires an argument -- '%c'", letters[n])
		}
		value := g.args[0]
		g.args = g.args[1:]
		return g.o.store(row, value)
	}
	return nil
}

func (g *getopt) letter(c byte) *option {
	for _, row := range g.rows {
		if row.short == c {
			return row
		}
	}
	return nil
}

// words are the option that is being read, as it was given.
func (g *getopt) words() string { return strings.Join(g.before[:len(g.before)-len(g.args)], " ") }

func (g *getopt) wrongf(format string, args ...any) error {
	return g.wrong(fmt.Sprintf(format, args...))
}

// wrongAndTry is the C library's message and qemu-nbd's after it.
func (g *getopt) wrongAndTry(text string) error {
	return &usageError{own: text, plain: true, qemu: fmt.Sprintf("%s: %s\n%s: %s", g.program, text, qemuName, g.o.tryHelp())}
}

// tryHelp is QEMU's advice.
func (o *options) tryHelp() string {
	return fmt.Sprintf("Try `%s --help' for more information.", o.calledAs)
}

// store applies one option.
func (o *options) store(row *option, value string) error {
	if err := row.set(o, value); err != nil {
		return err
	}
	o.given[row.long] = true
	return nil
}
