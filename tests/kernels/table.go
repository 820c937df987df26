package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// defaultTests send packets of every kind through a fabric of three nodes, in
// every way that the programs can be attached.
const defaultTests = "^(TestDataplane|TestClsact)$"

// shortTests are those of them that fail first where a program is refused by the
// verifier, or a helper does something else: one way of attaching, and each way of
// a packet.
const shortTests = "^(TestDataplane|TestClsact)$/^tc$/^(ingress|ingress_by_ipv6|east_west|east_west_by_ipv6|isolation|too_big|fragments|encrypted)$"

// since says which kernels have a feature: from that version on.
var since = map[string][2]int{
	"eBPF at TC":             {4, 1},
	"XDP":                    {4, 8},
	"LRU maps":               {4, 10},
	"bpf_redirect_peer":      {5, 10},
	"bpf_redirect_neigh":     {5, 10},
	"XDP of several buffers": {5, 18},
	"TCX":                    {6, 6},
	"WireGuard":              {5, 6},
}

// version is the beginning of the kernel's release.
func (k kernel) version() (v [2]int) {
	_, _ = fmt.Sscanf(k.release, "%d.%d", &v[0], &v[1])
	return v
}

// table shows in Markdown what works on which kernel. A test that runs in
// several modes is one row, with the modes that passed.
func table(results []result) string {
	var b strings.Builder
	row := func(name string, cell func(r result) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, r := range results {
			fmt.Fprintf(&b, " %s |", cell(r))
		}
		b.WriteString("\n")
	}
	row("", func(r result) string { return r.kernel.release })
	row("---", func(result) string { return "---" })
	for _, name := range merge(results, func(r result) []string { return r.features }) {
		row(name, func(r result) string {
			if r.have[name] {
				return "yes"
			}
			return "-"
		})
	}
	for _, name := range merge(results, result.rows) {
		row(strings.ReplaceAll(name, "_", " "), func(r result) string { return r.cell(name) })
	}
	return b.String()
}

// merge joins the lists of all results, each name once, in their order.
func merge(results []result, list func(result) []string) []string {
	var all []string
	for _, r := range results {
		for _, name := range list(r) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// splitTest takes a test's name apart: TestDataplane/xdp/ingress is ingress in
// the mode xdp; TestClsact is itself. A test that others are part of is none.
func splitTest(name string) (mode, test string) {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) == 3 {
		return parts[1], parts[2]
	}
	if name == "TestClsact" {
		return "clsact", "replacing filters"
	}
	return "", ""
}

// rows are the tests, without their modes.
func (r result) rows() []string {
	var rows []string
	for _, name := range r.tests {
		if _, test := splitTest(name); test != "" {
			rows = append(rows, test)
		}
	}
	return rows
}

// cell says in which modes a test passed, and in which it did something else.
func (r result) cell(row string) string {
	var modes []string
	for _, name := range r.tests {
		mode, test := splitTest(name)
		if test != row {
			continue
		}
		if outcome := r.outcomes[name]; outcome != "PASS" {
			mode += " " + outcome
		}
		modes = append(modes, mode)
	}
	if modes == nil {
		return "not run"
	}
	return strings.Join(modes, ", ")
}

// unexpected lists what is not as it should be.
func unexpected(results []result) error {
	var err error
	for _, r := range results {
		err = errors.Join(err, r.unexpected())
	}
	return err
}

func (r result) unexpected() error {
	var problems []string
	version := r.kernel.version()
	for _, name := range r.features {
		first, known := since[name]
		switch want := slices.Compare(version[:], first[:]) >= 0; {
		case !known:
			problems = append(problems, fmt.Sprintf("%s: say in tests/kernels since when kernels have it", name))
		case r.have[name] != want:
			problems = append(problems, fmt.Sprintf("%s: %t, want %t", name, r.have[name], want))
		}
	}
	for _, name := range r.tests {
		if outcome := r.outcomes[name]; outcome != "PASS" {
			problems = append(problems, strings.Join(append([]string{name + ": " + outcome}, r.said[name]...), "\n"))
		}
	}
	switch {
	case !r.finished:
		problems = append(problems, "it did not finish; its last lines:\n"+strings.Join(r.last, "\n"))
	case len(r.tests) == 0:
		problems = append(problems, "no test ran")
	}
	if problems == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", r.kernel.release, strings.Join(problems, "; "))
}
