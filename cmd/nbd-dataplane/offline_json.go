package main

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strings"
)

// emptyList is how the encoder writes a list of nothing; QEMU breaks the line.
var emptyList = regexp.MustCompile(`(?m)^( *)(.*)\[\](,?)$`)

// writeQEMUJSON writes a value as QEMU prints it.
func writeQEMUJSON(w io.Writer, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // a URL is to be read by people as well
	encoder.SetIndent("", "    ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := w.Write(emptyList.ReplaceAll(text.Bytes(), []byte("$1$2[\n$1]$3")))
	return err
}

// jsonText is a text as JSON has it, with nothing in it that HTML would not like escaped.
func jsonText(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a text has a form
	return strings.TrimSuffix(b.String(), "\n")
}
