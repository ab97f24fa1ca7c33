package main

import (
	"encoding/json"
	"io"
	"regexp"
)

// emptyList is how the encoder writes a list of nothing; QEMU breaks the line.
var emptyList = regexp.MustCompile(`(?m)^( *)(.*)\[\](,?)$`)

// writeQEMUJSON writes a value as QEMU prints it.
func writeQEMUJSON(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "    ")
	if err != nil {
		return err
	}
	text = emptyList.ReplaceAll(text, []byte("$1$2[\n$1]$3"))
	_, err = w.Write(append(text, '\n'))
	return err
}
