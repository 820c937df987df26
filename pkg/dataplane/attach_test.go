package dataplane_test

import (
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// Each attachment says by what it is, and why by that.
func TestAttachments(t *testing.T) {
	const asked = "asked for by --datapath "
	tc := byTC()
	for mode, xdp := range map[dataplane.Mode]api.Attachment{
		dataplane.ModeAuto: {How: "none", Why: "eth0 is a veth: XDP on it ends segmentation offload at its other end; --datapath xdp takes it"},
		dataplane.ModeXDP:  {How: "xdp native", Why: asked + "xdp"},
		dataplane.ModeTC:   {How: "none", Why: asked + "tc"},
	} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			c.apply(c.backends(1)...)
			for _, want := range []api.Attachment{
				{Device: "eth0", Program: "uplink_xdp", How: xdp.How, Why: xdp.Why},
				{Device: "eth0", Program: "uplink_tc", How: tc.How, Why: tc.Why},
				{Device: "lo", Program: "loopback", How: tc.How, Why: tc.Why},
				{Device: "t-web1", Program: "task", How: tc.How, Why: tc.Why},
			} {
				if got := c.nodes[0].attached(want.Program, want.Device); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
			}
		})
	}
}

// byTC is how this kernel takes programs at TC.
func byTC() api.Attachment {
	for _, f := range dataplane.Features() {
		if f.Name == "TCX" && f.Have {
			return api.Attachment{How: "tcx", Why: "this kernel has it"}
		}
	}
	return api.Attachment{How: "clsact", Why: "this kernel has no TCX, which came with Linux 6.6"}
}

// attached is what the data plane says of a program on a device.
func (n *node) attached(program, device string) api.Attachment {
	n.t.Helper()
	var list []api.Attachment
	n.must(func() (err error) {
		list, err = n.dp.Attachments()
		return err
	})
	for _, a := range list {
		if a.Program == program && a.Device == device {
			return a
		}
	}
	n.t.Fatalf("no %s of %s among %+v", program, device, list)
	return api.Attachment{}
}
