package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// table is text in columns.
type table struct {
	heads []string
	right []bool // aligned to the right, as numbers are
	rows  [][]string
}

// newTable takes the heads of the columns; a ">" before one aligns it to the right.
func newTable(heads ...string) *table {
	t := &table{}
	for _, head := range heads {
		name, right := strings.CutPrefix(head, ">")
		t.heads, t.right = append(t.heads, name), append(t.right, right)
	}
	return t
}

// row adds a row; an empty cell is shown as "-".
func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		if row[i] = fmt.Sprint(cell); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.heads))
	for _, row := range append([][]string{t.heads}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	bold, plain := "", ""
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		bold, plain = "\x1b[1m", "\x1b[0m"
	}
	fmt.Fprintf(w, "%s%s%s\n", bold, t.line(t.heads, widths), plain)
	for _, row := range t.rows {
		fmt.Fprintln(w, t.line(row, widths))
	}
}

// line pads the cells of a row.
func (t *table) line(row []string, widths []int) string {
	var b strings.Builder
	for i, cell := range row {
		gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if t.right[i] {
			b.WriteString(gap + cell)
		} else {
			b.WriteString(cell + gap)
		}
		b.WriteString("  ")
	}
	return strings.TrimRight(b.String(), " ")
}

// printable is a name from elsewhere - clients choose some of them - without what a terminal would obey.
func printable(name string) string {
	quoted := strconv.Quote(name)
	if name != "" && quoted[1:len(quoted)-1] == name {
		return name
	}
	return quoted
}

// printableOr is printable, and other for no name at all.
func printableOr(name, other string) string {
	if name == "" {
		return other
	}
	return printable(name)
}

// sizeText is a number of bytes for people, with a place behind the point where it is not whole in its unit.
func sizeText[N int | int64 | uint64](bytes N) string {
	const units = "KMGTPE"
	shift := 0
	for shift < len(units) && uint64(bytes)>>(10*shift) >= 1024 {
		shift++
	}
	switch whole := uint64(bytes) >> (10 * shift); {
	case shift == 0:
		return strconv.FormatUint(whole, 10)
	case whole<<(10*shift) == uint64(bytes):
		return strconv.FormatUint(whole, 10) + units[shift-1:shift]
	}
	return strconv.FormatFloat(float64(bytes)/float64(uint64(1)<<(10*shift)), 'f', 1, 64) + units[shift-1:shift]
}

// ageText is a time for people, to three places or so.
func ageText(d time.Duration) string {
	switch {
	case d == 0: // whole seconds, fewer than one: nothing else is exact
		return "0s"
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%dus", d.Microseconds())
}

// printJSON writes a value for programs.
func (t *ctl) printJSON(value any) error {
	encoder := json.NewEncoder(t.c.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// say tells people what has been done; programs have the status.
func (t *ctl) say(format string, args ...any) {
	if !t.asJSON {
		fmt.Fprintf(t.c.out, format+"\n", args...)
	}
}
