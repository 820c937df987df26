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
}

const (
	plainPath        = "plain routing, through n1 both ways"
	iptablesVXLAN    = "iptables DNAT + masquerade, kernel VXLAN"
	swarmPath        = "Swarm's mesh, DNAT for IPVS"
	swarmOverlayPath = "Swarm's overlay"
	ingressPath      = "orch ingress, tc"
	directPath       = "orch ingress, tc, direct return"
	vxlanPath        = "kernel VXLAN"
	overlayPath      = "orch overlay"
)

var targets = []target{
	{ingressPath, plainPath, keepAlive.name, 1.10},
	{ingressPath, plainPath, newConnection.name, 1.10},
	{directPath, plainPath, keepAlive.name, 1.0},
	{directPath, plainPath, newConnection.name, 1.0},
	{ingressPath, iptablesVXLAN, keepAlive.name, 0.65},
	{ingressPath, iptablesVXLAN, newConnection.name, 0.65},
	{ingressPath, swarmPath, keepAlive.name, 0.65},
	{ingressPath, swarmPath, newConnection.name, 0.65},
	{overlayPath, vxlanPath, newConnection.name, 0.70},
	{overlayPath, vxlanPath, stream.name, 0.85},
	{overlayPath, swarmOverlayPath, newConnection.name, 0.70},
	{overlayPath, swarmOverlayPath, stream.name, 0.85},
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
			line("%-31s over %-42s %-15s %5.2f   %5.2f %5.2f  (must be at most %.2f)", t.path, t.baseline+",", t.measure,
				path.over(baseline), path.Median/baseline.Median, path.Best/baseline.Best, t.atMost)
		}
	}
	if c := r.cell(overlayPath, stream.name); c != nil {
		line("%-31s mean packet between the nodes, one TCP stream: %.1f KB  (must be at least %.0f KB)", overlayPath, c.meanPacket()/1e3, meanPacketTarget/1e3)
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
