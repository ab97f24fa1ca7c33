// Package repo holds the rules of the repository as tests: who may import whom, how long a file may be, which headings
// fields stand under, what tests may not do, and what the documents must name. A rule that a machine can hold is kept
// here and not in a review; the exceptions stand beside it, each with its reason.
package repo
