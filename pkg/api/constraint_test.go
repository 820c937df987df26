package api

import (
	"net/netip"
	"testing"
)

func TestConstraintMatches(t *testing.T) {
	node := &Node{
		ID: "n1", Hostname: "alpha", Role: RoleWorker,
		Labels: map[string]string{"storage": "fast"},
		Addr:   netip.MustParseAddr("192.0.2.7"),
		Info:   NodeInfo{OS: "linux", Arch: "amd64"},
	}
	tests := []struct {
		key  string
		op   ConstraintOp
		val  string
		want bool
	}{
		{"node.id", OpEqual, "n1", true},
		{"node.id", OpEqual, "n2", false},
		{"node.id", OpNotEqual, "n2", true},
		{"node.hostname", OpEqual, "Alpha", true},
		{"node.role", OpEqual, "worker", true},
		{"node.role", OpEqual, "manager", false},
		{"node.role", OpNotEqual, "worker", false},
		{"node.labels.storage", OpEqual, "fast", true},
		{"node.labels.storage", OpEqual, "slow", false},
		{"node.labels.zone", OpEqual, "a", false},
		{"node.labels.zone", OpNotEqual, "a", true},
		{"node.platform.os", OpEqual, "linux", true},
		{"node.platform.arch", OpEqual, "x86_64", true},
		{"node.platform.arch", OpEqual, "arm64", false},
		{"node.ip", OpEqual, "192.0.2.7", true},
		{"node.ip", OpEqual, "192.0.2.0/24", true},
		{"node.ip", OpNotEqual, "192.0.2.0/24", false},
		{"node.ip", OpEqual, "198.51.100.0/24", false},
		{"node.ip", OpEqual, "nonsense", false},
		{"node.unknown", OpEqual, "x", false},
	}
	for _, tt := range tests {
		c := Constraint{tt.key, tt.op, tt.val}
		if got := c.Matches(node); got != tt.want {
			t.Errorf("%v matches: %v, want %v", c, got, tt.want)
		}
	}
}
