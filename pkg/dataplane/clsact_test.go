package dataplane_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// A filter of clsact is not ours alone to remove, and what marks it stays behind.
func TestFilterRemovedByAnother(t *testing.T) {
	c := newCluster(t, dataplane.ModeTC)
	n := c.nodes[0]
	n.purge()
	n.dp = nil
	for _, mark := range []string{fmt.Sprintf("uplink_tc_%d", c.index(n.space, "eth0")), fmt.Sprintf("task_%d", c.web[0].ifindex)} {
		if err := os.MkdirAll(filepath.Join(n.pins, "links", mark), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.open()
	c.apply(c.backends(1)...)
	removed := api.Attachment{How: "none", Why: "another program has removed the filter"}
	for _, f := range []struct {
		device, program string
		remove          []string
	}{
		{"eth0", "uplink_tc", []string{"qdisc", "del", "dev", "eth0", "clsact"}},
		{"t-web1", "task", []string{"filter", "del", "dev", "t-web1", "ingress"}},
	} {
		if got := n.attached(f.program, f.device); got.How != "clsact" {
			t.Errorf("before: %+v", got)
		}
		run(t, "tc", append([]string{"-n", n.space.name}, f.remove...)...)
		// Another's filter in its place is not taken for ours.
		if f.program == "task" {
			run(t, "tc", "-n", n.space.name, "filter", "add", "dev", f.device, "ingress", "pref", "1", "bpf", "bytecode", "1,6 0 0 4294967295", "flowid", "1:1")
		}
		want := removed
		want.Device, want.Program = f.device, f.program
		if got := n.attached(f.program, f.device); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
