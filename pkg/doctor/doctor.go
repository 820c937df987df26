// Package doctor judges what nodes found when they examined themselves. It is
// pure: the nodes collect, and here is nothing but opinion.
package doctor

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// Level says how bad a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, but not as well or as safely as it could
	Fail Level = "fail" // something does not work
)

// Finding is what one check says of one node.
type Finding struct {
	Node  string `json:"node"` // hostname
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	// Do says what to do about it; "" of what is ok.
	Do string `json:"do,omitempty"`
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, Found: fmt.Sprintf(format, args...)}
}

func bad(level Level, do, format string, args ...any) Finding {
	return Finding{Level: level, Found: fmt.Sprintf(format, args...), Do: do}
}

// checks are what is looked at on each node, in the order in which it is told.
var checks = []struct {
	name string
	look func(*api.NodeFacts) []Finding
}{
	{"kernel", kernel},
	{"bpffs", bpffs},
	{"attachments", attachments},
	{"uplink", uplink},
	{"MTU", mtu},
	{"task MTU", taskMTU},
	{"ports", ports},
	{"overlay", overlay},
	{"direct return", directReturn},
	{"forwarding", forwarding},
	{"clock", clock},
	{"engine", engine},
	{"disk", disk},
	{"reserved ports", reservedPorts},
}

// Judge says of each node, in the order of the answers, what each check finds.
func Judge(answers *api.Answers[api.NodeFacts]) []Finding {
	var findings []Finding
	for _, a := range answers.Nodes {
		if a.Answer == nil {
			findings = append(findings, Finding{Node: a.Hostname, Check: "node", Level: Fail, Found: a.Error,
				Do: "see whether orch daemon runs there, and its log"})
			continue
		}
		for _, check := range checks {
			for _, f := range check.look(a.Answer) {
				f.Node, f.Check = a.Hostname, check.name
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// Worst is the level of the worst finding.
func Worst(findings []Finding) Level {
	rank := map[Level]int{OK: 0, Warn: 1, Fail: 2}
	if len(findings) == 0 {
		return OK
	}
	return slices.MaxFunc(findings, func(a, b Finding) int { return cmp.Compare(rank[a.Level], rank[b.Level]) }).Level
}
