//go:build check

package subject

const checkOn = true
