package main

import (
	"fmt"
	"strings"
)

// target is what one path's cost must be beside another's, under one measure.
type target struct {
	path, baseline string
	measure        string
	atMost         float64 // path over baseline
	// limit is the path that does the least for the same: no balancer carries a client's
	// packets for less than plain routing, and no overlay of programs those of workloads
	// for less than one that looks nothing up. A target below what that one costs on this
	// machine cannot be reached on it. Empty: the baseline is one.
	limit string
}

const (
	plainPath        = "plain routing, through n1 both ways"
	oneWayPath       = "plain routing, replies straight from n2"
	iptablesVXLAN    = "iptables DNAT + masquerade, kernel VXLAN"
	swarmPath        = "Swarm's mesh, DNAT for IPVS"
	swarmOverlayPath = "Swarm's overlay"
	ingressPath      = "orch ingress, tc"
	directPath       = "orch ingress, tc, direct return"
	vxlanPath        = "kernel VXLAN"
	leastPath        = "least eBPF overlay, no state"
	overlayPath      = "orch overlay"
)

var targets = []target{
	{ingressPath, plainPath, keepAlive.name, 1.10, ""},
	{ingressPath, plainPath, newConnection.name, 1.10, ""},
	{directPath, plainPath, keepAlive.name, 1.0, oneWayPath},
	{directPath, plainPath, newConnection.name, 1.0, oneWayPath},
	{ingressPath, iptablesVXLAN, keepAlive.name, 0.65, plainPath},
	{ingressPath, iptablesVXLAN, newConnection.name, 0.65, plainPath},
	{ingressPath, swarmPath, keepAlive.name, 0.65, plainPath},
	{ingressPath, swarmPath, newConnection.name, 0.65, plainPath},
	{overlayPath, vxlanPath, newConnection.name, 0.70, leastPath},
	{overlayPath, vxlanPath, stream.name, 0.85, leastPath},
	{overlayPath, swarmOverlayPath, newConnection.name, 0.70, leastPath},
	{overlayPath, swarmOverlayPath, stream.name, 0.85, leastPath},
}

// meanPacketTarget is what a packet between the nodes must have on average while
// a stream passes, in bytes.
const meanPacketTarget = 48_000

// printTargets writes how far the paths that were measured are from what they
// must reach.
func (r *result) printTargets(b *strings.Builder) {
	head := false
	line := func(format string, args ...any) {
		if !head {
			b.WriteString("\nWhat must be reached: the middle of the ratios in each round, and the ratios of the medians and of the best\n")
			head = true
		}
		fmt.Fprintf(b, format+"\n", args...)
	}
	for _, t := range targets {
		path, baseline := r.cell(t.path, t.measure), r.cell(t.baseline, t.measure)
		if path != nil && baseline != nil {
			limit := ""
			if least := r.cell(t.limit, t.measure); least != nil {
				limit = fmt.Sprintf("; %s: %.2f", t.limit, least.over(baseline))
			}
			line("%-31s over %-42s %-15s %5.2f   %5.2f %5.2f  (must be at most %.2f%s)", t.path, t.baseline+",", t.measure,
				path.over(baseline), path.Median/baseline.Median, path.Best/baseline.Best, t.atMost, limit)
		}
	}
	if c := r.cell(overlayPath, stream.name); c != nil {
		limit := ""
		if least := r.cell(leastPath, stream.name); least != nil {
			limit = fmt.Sprintf("; %s: %.1f KB", leastPath, least.meanPacket()/1e3)
		}
		line("%-31s mean packet between the nodes, one TCP stream: %.1f KB  (must be at least %.0f KB%s)", overlayPath, c.meanPacket()/1e3, meanPacketTarget/1e3, limit)
	}
}

// cell is what was measured of a path, nil if it was not.
func (r *result) cell(path, measure string) *cell {
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			for i, c := range row.Cells {
				if row.Path == path && c.Measure == measure {
					return &row.Cells[i]
				}
			}
		}
	}
	return nil
}

// over is the middle of the ratios to another path's cost in the same round, which what
// changes from round to round, as a neighbour's work does, changes least. Rounds in which
// others disturbed one of the two are left out, unless that is all of them.
func (c cell) over(baseline *cell) float64 {
	var calm, all []float64
	for i, s := range c.Samples {
		ratio := s.Cost / baseline.Samples[i].Cost
		all = append(all, ratio)
		if s.Others < noisy && baseline.Samples[i].Others < noisy {
			calm = append(calm, ratio)
		}
	}
	if len(calm) == 0 {
		calm = all
	}
	_, median := bestAndMedian(calm)
	return median
}

// meanPacket is the median over the samples.
func (c cell) meanPacket() float64 {
	var sizes []float64
	for _, s := range c.Samples {
		sizes = append(sizes, s.MeanPacket)
	}
	_, median := bestAndMedian(sizes)
	return median
}
