package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/orch-dev/orch/tests/bench/figures"
)

// result is everything one run has found.
type result struct {
	Machine     figures.Machine `json:"machine"`
	Rounds      int             `json:"rounds"`
	Seconds     int             `json:"seconds"`
	Connections int             `json:"connections"`
	StreamBytes int64           `json:"streamBytes"`
	// Others is the median over all samples of the part of the CPU time counted
	// that other processes used, 0..1.
	Others float64       `json:"others"`
	Tables []tableResult `json:"tables"`
}

// noisy is the part of others from which on a sample is not to be trusted.
const noisy = 0.05

type tableResult struct {
	Title string `json:"title"`
	Rows  []row  `json:"rows"` // the first is the baseline
}

type row struct {
	Path  string `json:"path"`
	Sees  string `json:"workloadSees"` // the host whose address the workload sees
	Cells []cell `json:"measures"`
}

// cell is one path under one measure. Best, Median and those of the baseline
// they are divided by are over the calm rounds, and over all where none was.
type cell struct {
	Measure     string   `json:"measure"`
	Unit        string   `json:"unit"`
	Best        float64  `json:"best"`
	Median      float64  `json:"median"`
	BestRatio   float64  `json:"bestRatio"`
	MedianRatio float64  `json:"medianRatio"`
	CalmRounds  int      `json:"calmRounds"` // in which others used less than noisy
	Samples     []sample `json:"samples"`    // in order of rounds
}

// newResult makes the empty tables.
func newResult(m figures.Machine, opt options, tables []table) *result {
	r := &result{Machine: m, Rounds: opt.rounds, Seconds: opt.seconds, Connections: opt.connections, StreamBytes: opt.streamBytes}
	for _, t := range tables {
		tr := tableResult{Title: t.title}
		for _, p := range t.paths {
			cells := make([]cell, len(t.measures))
			for i, m := range t.measures {
				cells[i] = cell{Measure: m.name, Unit: m.unit}
			}
			tr.Rows = append(tr.Rows, row{Path: p.name, Sees: p.sees, Cells: cells})
		}
		r.Tables = append(r.Tables, tr)
	}
	return r
}

// add appends a sample by the positions of its table, path and measure.
func (r *result) add(table, path, measure int, s sample) {
	c := &r.Tables[table].Rows[path].Cells[measure]
	c.Samples = append(c.Samples, s)
}

// finish computes best, median and ratios.
func (r *result) finish() {
	var others []float64
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			for i := range row.Cells {
				c, base := &row.Cells[i], t.Rows[0].Cells[i]
				var calm []float64
				calm, c.CalmRounds = calmCosts(c.Samples)
				c.Best, c.Median = bestAndMedian(calm)
				baseCalm, _ := calmCosts(base.Samples)
				baseBest, baseMedian := bestAndMedian(baseCalm)
				c.BestRatio, c.MedianRatio = c.Best/baseBest, c.Median/baseMedian
				for _, s := range c.Samples {
					others = append(others, s.Others)
				}
			}
		}
	}
	_, r.Others = bestAndMedian(others)
}

// calmCosts are the costs of the calm samples and how many they are; where
// none is calm, the costs of all and 0.
func calmCosts(samples []sample) (costs []float64, calm int) {
	var all []float64
	for _, s := range samples {
		all = append(all, s.Cost)
		if s.Others < noisy {
			costs = append(costs, s.Cost)
		}
	}
	if len(costs) == 0 {
		return all, 0
	}
	return costs, len(costs)
}

// bestAndMedian are the smallest and the middle of at least one value.
func bestAndMedian(values []float64) (best, median float64) {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return sorted[0], (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[0], sorted[middle]
}

// print writes the tables for people.
func (r *result) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "CPU time of the whole machine, client and workload included; best and median of %d interleaved rounds\n", r.Rounds)
	fmt.Fprintf(&b, "(disturbed ones left out), and both as multiples of the first line. %d s and %d connections per measurement, streams of %.1f GB.\n", r.Seconds, r.Connections, float64(r.StreamBytes)/1e9)
	fmt.Fprintf(&b, "Kernel %s, %d CPUs, load average %s at start; other programs used %.1f %% (median) of the CPU time counted.\n", r.Machine.Kernel, r.Machine.CPUs, r.Machine.Load, r.Others*100)
	if r.disturbed() {
		fmt.Fprintf(&b, "In no round of a line marked * did they use less than %.0f %%: do not quote it, nor its ratio. Run again when the machine is calm, or with more rounds.\n", noisy*100)
	}
	for _, t := range r.Tables {
		b.WriteString("\n")
		t.print(&b)
	}
	r.printTargets(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// disturbed reports whether any figure is without a calm round.
func (r *result) disturbed() bool {
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			for _, c := range row.Cells {
				if c.CalmRounds == 0 {
					return true
				}
			}
		}
	}
	return false
}

func (t tableResult) print(b *strings.Builder) {
	width := len(t.Title)
	for _, row := range t.Rows {
		width = max(width, len(row.Path))
	}
	line := func(name, sees string, cells []cell, format func(cell) string) {
		l := fmt.Sprintf("%-*s  %-6s", width, name, sees)
		for _, c := range cells {
			l += " | " + format(c)
		}
		b.WriteString(strings.TrimRight(l, " ") + "\n")
	}
	head := t.Rows[0].Cells
	line(t.Title, "seen", head, func(c cell) string { return fmt.Sprintf("%30s", c.Measure+", "+c.Unit) })
	line("", "from", head, func(cell) string { return fmt.Sprintf("%7s %7s %6s %6s ", "best", "median", "x best", "x med") })
	for _, row := range t.Rows {
		line(row.Path, row.Sees, row.Cells, cell.figures)
	}
}

func (c cell) figures() string {
	mark := " "
	if c.CalmRounds == 0 {
		mark = "*"
	}
	return fmt.Sprintf("%7.1f %7.1f %6.2f %6.2f%s", c.Best, c.Median, c.BestRatio, c.MedianRatio, mark)
}

// writeJSON writes the whole result, every sample included.
func (r *result) writeJSON(file string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	if err := os.WriteFile(file, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
