package blockcore

import "regexp"

// identifier is a letter, and then letters, digits, '.', '_' and '-'.
var identifier = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// IsIdentifier says whether text will do as the id of a job, an export, an object or a node, as QEMU has them. How long one may be
// depends on what it names.
func IsIdentifier(text string) bool { return identifier.MatchString(text) }
