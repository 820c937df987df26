package agent

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// The devices that encrypt are in the plan that the kernel gets, the managers hear
// of each that is new, and one that cannot be made holds up nothing.
func TestMakeTunnels(t *testing.T) {
	m := newMachine()
	a := New(Config{Node: "n1", Tunnels: wires{m}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	told := func() bool {
		select {
		case <-a.look:
			return true
		default:
			return false
		}
	}
	for _, step := range []struct {
		name   string
		epochs []uint64
		err    error
		want   []int
		tells  bool
	}{
		{"nothing is encrypted", nil, nil, nil, false},
		{"the first device", []uint64{1}, nil, []int{41}, true},
		{"the same once more", []uint64{1}, nil, []int{41}, false},
		{"the next epoch's", []uint64{1, 2}, nil, []int{41, 42}, true},
		{"none can be made", []uint64{1, 2}, errors.New("no such device"), []int{0, 0}, true},
		{"nothing is encrypted any more", nil, nil, nil, true},
	} {
		m.tunnelErr = step.err
		plan := api.NetworkPlan{Tunnels: api.TunnelPlan{Epochs: step.epochs}}
		a.makeTunnels(&plan)
		if !slices.Equal(plan.Tunnels.Devices, step.want) {
			t.Errorf("%s: devices %v, want %v", step.name, plan.Tunnels.Devices, step.want)
		}
		if got := told(); got != step.tells {
			t.Errorf("%s: told %v, want %v", step.name, got, step.tells)
		}
	}
}
