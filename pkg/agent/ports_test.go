package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/sysctl"
)

// gate notes in which order ports are reserved and the data plane answers on them.
type gate struct {
	did                           []string
	planErr, reserveErr, leaveErr error
}

func (g *gate) ReservePorts(ports []uint16) error {
	g.did = append(g.did, fmt.Sprint("reserve ", ports))
	return g.reserveErr
}

func (g *gate) ReleasePorts(but []uint16) error {
	g.did = append(g.did, fmt.Sprint("release but ", but))
	return g.leaveErr
}

func (g *gate) Apply(_ context.Context, plan api.NetworkPlan) error {
	g.did = append(g.did, fmt.Sprint("answer on ", plan.Published()))
	return g.planErr
}

// publishing is a state with a service that has these ports, and a virtual IP.
func publishing(ports ...api.Port) *api.Snapshot {
	next := *newCluster().snap
	next.Services = map[api.ServiceID]*api.Service{"s": {ID: "s", Spec: api.ServiceSpec{Name: "web"}, VIP: addr.Next(), Ports: ports}}
	served := assigned("a", "n1")
	served.Endpoint.State = api.EndpointReady
	next.Tasks = map[api.TaskID]*api.Task{"a": served}
	return &next
}

func onGate(g *gate, ports Ports, log *slog.Logger) *Agent {
	return New(Config{Node: "n1", Links: newMachine(), Dataplane: g, Tunnels: wires{newMachine()}, Ports: ports, Names: newMachine(), Gossip: newCluster(), Now: time.Now, Log: log})
}

// Ports are reserved before the data plane answers on them, and until it has ceased
// to, and not anew with each change. What cannot be reserved holds up nothing, and is told.
func TestPortsAreReservedFirst(t *testing.T) {
	var log strings.Builder
	g := &gate{}
	a := onGate(g, g, slog.New(slog.NewTextHandler(&log, nil)))
	plain := api.Port{Published: 8080, Target: 80, Protocol: api.TCP}
	both := []api.Port{plain, {Published: 40000, Target: 80, Protocol: api.TCP}, {Published: 40000, Target: 53, Protocol: api.UDP}, {Published: 443, Target: 443, Protocol: api.TCP, Host: true}}
	full := errors.New("map is full")
	for _, step := range []struct {
		name string
		view *api.Snapshot
		set  func()
		want []string
		says string
		err  error
	}{
		{"published", publishing(both...), func() {}, []string{"reserve [443 8080 40000]", "answer on [443 8080 40000]", "release but [443 8080 40000]"}, "", nil},
		{"the plan cannot be applied", publishing(plain), func() { g.planErr = full }, []string{"reserve [8080]", "answer on [8080]"}, "", full},
		{"and then can", publishing(plain), func() { g.planErr = nil }, []string{"reserve [8080]", "answer on [8080]", "release but [8080]"}, "", nil},
		{"something else changes", publishing(plain), func() {}, []string{"answer on [8080]"}, "", nil},
		{"they cannot be reserved", publishing(both[1]), func() { g.reserveErr = errors.New("read-only") },
			[]string{"reserve [40000]", "answer on [40000]", "release but [40000]"}, "cannot reserve published ports", nil},
		{"which is told once", publishing(both[1]), func() {}, []string{"answer on [40000]"}, "", nil},
		{"nor released", publishing(), func() { g.reserveErr, g.leaveErr = nil, errors.New("read-only") },
			[]string{"reserve []", "answer on []", "release but []"}, "stay reserved", nil},
	} {
		g.did = nil
		log.Reset()
		step.set()
		if err := a.applyNetwork(t.Context(), step.view, nil); !errors.Is(err, step.err) {
			t.Errorf("%s: %v, want %v", step.name, err, step.err)
		}
		if diff := cmp.Diff(step.want, g.did); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		if said := log.String(); !strings.Contains(said, step.says) || step.says == "" && said != "" {
			t.Errorf("%s: the log says %q, want %q", step.name, said, step.says)
		}
	}
}

// In the kernel's list is what is published now, beside what an administrator has put
// there before and since, also when the daemon starts anew.
func TestPortsInTheKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // for good: the namespace ends with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	const list = "/proc/sys/net/ipv4/ip_local_reserved_ports"
	put := func(text string) func() error {
		return func() error { return os.WriteFile(list, []byte(text+"\n"), 0) }
	}
	path := filepath.Join(t.TempDir(), "sysctls.json")
	journal := func() *sysctl.Journal { return sysctl.New(path) } // each time as another process
	publish := func(ports ...uint16) func() error {
		return func() error {
			var all []api.Port
			for _, port := range ports {
				all = append(all, api.Port{Published: port, Target: 80, Protocol: api.TCP})
			}
			return onGate(&gate{}, journal(), slog.New(slog.DiscardHandler)).applyNetwork(t.Context(), publishing(all...), nil)
		}
	}
	nothing := func() error { return journal().ReleasePorts(nil) }
	restore := func() error { return journal().Restore() }
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"the administrator's", put("50000,60000-60010"), "50000,60000-60010"},
		{"published", publish(8080, 40000, 40001), "40000-40001,50000,60000-60010"},
		{"one the less, one the more", publish(8080, 40001, 40003, 50000), "40001,40003,50000,60000-60010"},
		{"the administrator adds", put("40001,40003,45000,50000,60000-60010"), "40001,40003,45000,50000,60000-60010"},
		{"published all the same", publish(40001), "40001,45000,50000,60000-60010"},
		{"the administrator writes it anew", put("45000"), "45000"},
		{"reserved again", publish(40001), "40001,45000"},
		{"the node leaves", nothing, "45000"},
		{"and is back", publish(40001, 45000), "40001,45000"},
		{"and leaves with all that it had", restore, "45000"},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got, err := os.ReadFile(list); err != nil || strings.TrimSpace(string(got)) != step.want {
			t.Fatalf("%s: %q is reserved, want %s: %v", step.name, got, step.want, err)
		}
	}
}

// Where nothing changes the node looks all the same whether its ports are reserved.
func TestPortsAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		a := onGate(g, g, slog.New(slog.DiscardHandler))
		a.view.Set(publishing(api.Port{Published: 40000, Target: 80, Protocol: api.TCP}))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.syncNetwork(ctx) }()
		time.Sleep(3*portsInterval - time.Second)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		once := []string{"reserve [40000]", "answer on [40000]", "release but [40000]"}
		if diff := cmp.Diff(slices.Concat(once, once, once), g.did); diff != "" {
			t.Errorf("in a little less than three intervals (-want +got):\n%s", diff)
		}
	})
}
