package main

import (
	"fmt"
	"strings"
)

// longForm writes out the switches that the argument of --chardev has in the old manner, a key alone for on and "no" before it for off, and
// returns a warning for each. The first part names the kind.
func longForm(text string) (long string, warnings []string) {
	parts := partsOf(text)
	for n, part := range parts {
		if n == 0 || part == "" || strings.Contains(part, "=") {
			continue
		}
		parts[n] = part + "=on"
		if key, off := strings.CutPrefix(part, "no"); off && part != "nodelay" {
			parts[n] = key + "=off"
		}
		better := parts[n]
		if part == "delay" {
			better = "nodelay=off"
		}
		warnings = append(warnings, fmt.Sprintf("short-form boolean option '%s' deprecated\nPlease use %s instead", part, better))
	}
	return strings.Join(parts, ","), warnings
}

// partsOf cuts at the commas that are not doubled; those stay as they are.
func partsOf(text string) []string {
	var parts []string
	begin := 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != ',':
		case i+1 < len(text) && text[i+1] == ',':
			i++
		default:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}
