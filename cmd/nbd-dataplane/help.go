package main

import (
	"fmt"
	"io"
	"strings"
)

const helpWidth = 100 // of a line of help

// helpWords fill the gaps in the help texts of the option table: defaults differ between the doors.
func helpWords(d door) *strings.Replacer {
	if d == doorQEMU {
		return strings.NewReplacer("%bind%", "0.0.0.0", "%shared%", "1", "%abstract%", "", "%own-default%", "",
			"%verbose%", "keep the standard error open with --fork")
	}
	return strings.NewReplacer("%bind%", "127.0.0.1", "%shared%", "0", "%abstract%", ", or @NAME for an abstract one",
		"%own-default%", " (always the case here; --exit-last is the opposite)", "%verbose%", "the same as --log-level=debug, and keep the standard error open with --fork")
}

// writeOptions writes the option table of a door, group by group.
func writeOptions(w io.Writer, d door) {
	words := helpWords(d)
	for g := groupGeneral; g <= groupRefused; g++ {
		rows := rowsIn(g, d)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", g)
		for _, row := range rows {
			writeOption(w, row, words.Replace(row.help))
		}
	}
}

func rowsIn(g group, d door) []*option {
	var rows []*option
	for _, row := range optionsAt(d) {
		if row.group == g {
			rows = append(rows, row)
		}
	}
	return rows
}

// helpColumn is where explanations begin.
const helpColumn = 32

func writeOption(w io.Writer, row *option, help string) {
	left := "      --" + row.long
	if row.short != 0 {
		left = fmt.Sprintf("  -%c, --%s", row.short, row.long)
	}
	if row.arg != "" {
		left += "=" + row.arg
	}
	for n, line := range wrap(help, helpWidth-helpColumn) {
		if n == 0 && len(left) < helpColumn {
			fmt.Fprintf(w, "%-*s%s\n", helpColumn, left, line)
			continue
		}
		if n == 0 {
			fmt.Fprintln(w, left)
		}
		fmt.Fprintf(w, "%*s%s\n", helpColumn, "", line)
	}
}

// wrap breaks text into lines at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
