//go:build check

package check

// Enabled reports whether the program was built with the check tag.
const Enabled = true
