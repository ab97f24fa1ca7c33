// Package report turns the samples of a benchmark into medians, spreads, ratios and
// tables that can be read.
package report
