package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is something about a compose file that a person has to know.
type Problem struct {
	// File is the Source's name; Line and Column count from 1. They are zero
	// where the problem is not about a place in a file.
	File   string
	Line   int
	Column int
	// Path is where in the compose model, for instance services.web.ports[0].
	Path    string
	Message string
	// Hint says what to do about it.
	Hint string
}

// String prints "FILE:LINE:COLUMN: PATH: MESSAGE; HINT", without the parts that
// are not known.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Problems is the error of a compose file that cannot be deployed.
type Problems struct {
	// List is in the order of the files, from top to bottom.
	List []Problem
}

// Error prints one problem a line.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, one := range p.List {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// newProblems puts problems in the order a reader meets them. Files keep the
// order in which they were first complained about.
func newProblems(list []Problem) *Problems {
	order := map[string]int{}
	for _, p := range list {
		if _, ok := order[p.File]; !ok {
			order[p.File] = len(order)
		}
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
		)
	})
	// A node reached through an alias is met once for every use.
	return &Problems{List: slices.Compact(list)}
}
