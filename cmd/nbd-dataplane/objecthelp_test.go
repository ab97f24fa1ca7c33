package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: whoever reads --help learns of each object that can be made. Method: the help of --object, of serve and of daemon, against the table.
func TestHelpNamesAllObjects(t *testing.T) {
	var texts []string
	for _, o := range optionTable {
		if o.long == "object" {
			texts = append(texts, o.help)
		}
	}
	for _, o := range daemonHelp {
		if o.long == "object" {
			texts = append(texts, o.text)
		}
	}
	require.Len(t, texts, 2)
	for _, text := range texts {
		words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(":, ", r) })
		for kind := range objectKinds {
			require.Contains(t, words, kind)
		}
		for kind := range secretKinds {
			require.Contains(t, words, kind)
		}
	}
}
