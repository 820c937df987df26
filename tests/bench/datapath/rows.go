package main

import (
	"fmt"
	"io"
	"slices"
)

// row prints a figure, what it must reach ("" where that is not said) and what
// it was worked out from.
func row(out io.Writer, what, figure, target, raw string) {
	if target != "" {
		target = "must be " + target + "; "
	}
	fmt.Fprintf(out, "%-52s  %-18s  (%s%s)\n", what, figure, target, raw)
}

// series are figures of one kind, of several rounds.
type series []float64

// addCost adds what a packet costs, in nanoseconds.
func (s *series) addCost(h *harness, packets int) error {
	cost, err := h.cost(packets)
	*s = append(*s, cost)
	return err
}

func (s series) least() float64  { return slices.Min(s) }
func (s series) most() float64   { return slices.Max(s) }
func (s series) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }
