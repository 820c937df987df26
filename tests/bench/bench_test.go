package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/tests/bench/figures"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == nodeCommand {
		exit(runNode(os.Args[2], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// Every path is what its line in the table says, and nothing of it is left
// when the fabrics are closed.
func TestPaths(t *testing.T) {
	if err := checkMachine(); err != nil {
		t.Skip(err)
	}
	fabrics := &fabricSet{byNetwork: map[string]*fabric{}}
	closed := false
	closeAll := func() {
		if !closed {
			closed = true
			if err := fabrics.close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(closeAll)
	for _, table := range allTables() {
		for _, p := range table.paths {
			if !t.Run(p.name, func(t *testing.T) {
				if err := fabrics.prepare(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}) {
				return
			}
		}
	}
	closeAll()
	own := fmt.Sprintf("%s%d-*", netnsPrefix, os.Getpid())
	for _, dir := range []string{netnsDir, os.TempDir()} {
		if left, _ := filepath.Glob(filepath.Join(dir, own)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestSelectPaths(t *testing.T) {
	for _, tt := range []struct {
		only string
		want []string
	}{
		{"^HAProxy, TCP mode$", []string{"plain routing, through n1 both ways", "HAProxy, TCP mode"}},
		{"^orch", []string{"plain routing, through n1 both ways", "orch ingress, tc", "orch ingress, tc, direct return", "orch ingress, xdp (on veth)", "plain routing", "orch overlay"}},
		{"no such path", nil},
	} {
		var got []string
		for _, table := range selectPaths(allTables(), regexp.MustCompile(tt.only)) {
			for _, p := range table.paths {
				got = append(got, p.name)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("only %q (-want +got):\n%s", tt.only, diff)
		}
	}
}

func TestParseWrk(t *testing.T) {
	const report = "Running 1s test @ http://192.0.2.1:8080/\n  1 threads and 32 connections\n  34178 requests in 1.04s, 5.90MB read\n"
	for _, tt := range []struct {
		name, out string
		want      float64
		err       string
	}{
		{"good", report + "Requests/sec:  32863.13\n", 34178, ""},
		{"errors", report + "  Socket errors: connect 0, read 3, write 0, timeout 0\n", 0, "Socket errors: connect 0, read 3"},
		{"wrong status", report + "  Non-2xx or 3xx responses: 12\n", 0, "Non-2xx or 3xx responses: 12"},
		{"nothing", "  0 requests in 1.00s, 0.00B read\n", 0, "no request was answered"},
		{"other", "unable to connect\n", 0, "no number of requests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseWrk(tt.out)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, %v; want %v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU("cpu  100 20 3000 4000 50 6 700 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")
	if err != nil {
		t.Fatal(err)
	}
	want := cpuTimes{busy: 38260 * time.Millisecond, idle: 40500 * time.Millisecond, stolen: 800 * time.Millisecond}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := parseCPU("intr 1 2 3\n"); err == nil {
		t.Error("no error for a file that does not begin with CPU times")
	}
}

func TestParseProcess(t *testing.T) {
	got, err := parseProcess("42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (process{pid: 42, parent: 7, used: 1270 * time.Millisecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReport(t *testing.T) {
	tables := []table{{
		title:    "client -> workload",
		paths:    []path{{name: "plain", sees: "client"}, {name: "a longer name", sees: "n1"}},
		measures: []measure{keepAlive},
	}}
	r := newResult(figures.Machine{Kernel: "6.18.0", CPUs: 2, Load: "0.10 0.20 0.30"}, options{rounds: 3, seconds: 1, connections: 32, streamBytes: 2e9}, tables)
	for i, s := range []sample{
		{Cost: 40}, {Cost: 60, Others: 0.2},
		{Cost: 30}, {Cost: 50, Others: 0.3},
		{Cost: 20, Others: 0.9}, {Cost: 70, Others: 0.1}, // left out; none is calm
	} {
		r.add(0, i%2, 0, s)
	}
	r.finish()
	var got strings.Builder
	if err := r.print(&got); err != nil {
		t.Fatal(err)
	}
	want := `CPU time of the whole machine, client and workload included; best and median of 3 interleaved rounds
(disturbed ones left out), and both as multiples of the first line. 1 s and 32 connections per measurement, streams of 2.0 GB.
Kernel 6.18.0, 2 CPUs, load average 0.10 0.20 0.30 at start; other programs used 15.0 % (median) of the CPU time counted.
In no round of a line marked * did they use less than 5 %: do not quote it, nor its ratio. Run again when the machine is calm, or with more rounds.

client -> workload  seen   |         keep-alive, us/request
                    from   |    best  median x best  x med
plain               client |    30.0    35.0   1.00   1.00
a longer name       n1     |    50.0    60.0   1.67   1.71*
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTargets(t *testing.T) {
	tables := []table{{
		title:    "client -> workload",
		paths:    []path{{name: vxlanPath}, {name: overlayPath}, {name: leastPath}},
		measures: []measure{newConnection, stream},
	}}
	r := newResult(figures.Machine{}, options{}, tables)
	for _, costs := range [][2]float64{{200, 150}, {400, 200}, {100, 40}} { // 0.75, 0.5, 0.4
		r.add(0, 0, 0, sample{Cost: costs[0]})
		r.add(0, 1, 0, sample{Cost: costs[1]})
		r.add(0, 2, 0, sample{Cost: costs[1] - 10}) // 0.7, 0.475, 0.3
	}
	r.add(0, 0, 0, sample{Cost: 100})
	r.add(0, 1, 0, sample{Cost: 900, Others: 0.5}) // left out
	r.add(0, 2, 0, sample{Cost: 900, Others: 0.5})
	r.add(0, 0, 1, sample{Cost: 1000})
	r.add(0, 1, 1, sample{Cost: 800, MeanPacket: 58_760})
	r.add(0, 2, 1, sample{Cost: 790, MeanPacket: 59_000})
	r.finish()
	var got strings.Builder
	r.printTargets(&got)
	want := `
What must be reached: the middle of the ratios in each round, and the ratios of the medians and of the best
orch overlay                    over kernel VXLAN,                              new connection   0.50    1.00  0.40  (must be at most 0.70; least eBPF overlay, no state: 0.47)
orch overlay                    over kernel VXLAN,                              one TCP stream   0.80    0.80  0.80  (must be at most 0.85; least eBPF overlay, no state: 0.79)
orch overlay                    mean packet between the nodes, one TCP stream: 58.8 KB  (must be at least 48 KB; least eBPF overlay, no state: 59.0 KB)
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
