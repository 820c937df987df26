package metrics

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// counted is a data plane that has counted this.
type counted dataplane.Stats

func (c counted) Stats() (dataplane.Stats, error) { return dataplane.Stats(c), nil }

func sources() Sources {
	published := api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: 8080, Protocol: api.TCP}
	stats := dataplane.Stats{
		Frontends: []dataplane.FrontendStats{{
			FrontendKey: published, Service: "blog_web", Counter: dataplane.Counter{Packets: 10, Bytes: 1000}, Flows: 4,
			Handshakes: dataplane.Handshakes{Counts: [16]uint64{1, 2, 15: 1}, Total: 5 * time.Second},
		}},
		Backends: []dataplane.BackendStats{{
			Frontend: published, Service: "blog_web", Addr: netip.MustParseAddr("10.128.0.5"), Port: 80,
			Counter: dataplane.Counter{Packets: 9, Bytes: 900}, Flows: 3,
		}},
		Pairs: []dataplane.PairStats{
			{Node: netip.MustParseAddr("192.0.2.2"), Counter: dataplane.Counter{Packets: 9, Bytes: 900}, Flows: 3},
			{Node: netip.MustParseAddr("192.0.2.9"), Counter: dataplane.Counter{Packets: 1, Bytes: 100}, Flows: 1},
		},
		Drops:    map[string]dataplane.Counter{"isolated": {Packets: 7}},
		Verdicts: map[string]dataplane.Counter{"delivered": {Packets: 8}},
	}
	view := &api.Snapshot{Index: 42, Nodes: map[api.NodeID]*api.Node{
		"a": {ID: "a", Hostname: "n1", Addr: netip.MustParseAddr("192.0.2.1"), State: api.NodeReady},
		"b": {ID: "b", Hostname: "n2", Addr: netip.MustParseAddr("192.0.2.2"), State: api.NodeDown},
	}, Tasks: map[api.TaskID]*api.Task{
		"t": {ID: "t", NodeID: "a", ServiceName: "blog_web", Status: api.TaskStatus{State: api.TaskRunning}},
		"u": {ID: "u", NodeID: "b", ServiceName: "blog_web", Status: api.TaskStatus{State: api.TaskRunning}},
	}}
	return Sources{
		Node: "a", Version: "1.2.3", Dataplane: counted(stats), View: func() *api.Snapshot { return view },
		Raft: func() (consensus.Stats, bool) {
			return consensus.Stats{State: "leader", Term: 3, AppliedIndex: 41, CommitIndex: 42}, true
		},
	}
}

// serve serves until the test ends.
func serve(t *testing.T, src Sources) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, src)
	return l.Addr().String()
}

func serveOn(t *testing.T, l net.Listener, src Sources) {
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, src) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// scrape asks as Prometheus does, and reads as it reads.
func scrape(t *testing.T, src Sources) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := http.Get("http://" + serve(t, src) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(families, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, "orch_") })
	return families
}

func TestScrape(t *testing.T) {
	var got []string
	for _, name := range slices.Sorted(maps.Keys(scrape(t, sources()))) {
		got = append(got, lines(scrape(t, sources())[name])...)
	}
	const frontend = `{frontend="any",port="8080",protocol="tcp",service="blog_web"}`
	const backend = `{backend="10.128.0.5",backend_port="80",frontend="any",port="8080",protocol="tcp",service="blog_web"}`
	want := []string{
		"orch_backend_bytes_total" + backend + " 900",
		"orch_backend_new_flows_total" + backend + " 3",
		"orch_backend_packets_total" + backend + " 9",
		`orch_build_info{version="1.2.3"} 1`,
		`orch_drops_total{reason="isolated"} 7`,
		"orch_frontend_bytes_total" + frontend + " 1000",
		"orch_frontend_handshake_seconds" + frontend + " 4 in 5 s: 1 up to 128µs, 3 up to 256µs, 3 up to 2.097152s",
		"orch_frontend_new_flows_total" + frontend + " 4",
		"orch_frontend_packets_total" + frontend + " 10",
		`orch_node_pair_bytes_total{from="n1",to="192.0.2.9"} 100`,
		`orch_node_pair_bytes_total{from="n1",to="n2"} 900`,
		`orch_node_pair_new_flows_total{from="n1",to="192.0.2.9"} 1`,
		`orch_node_pair_new_flows_total{from="n1",to="n2"} 3`,
		`orch_node_pair_packets_total{from="n1",to="192.0.2.9"} 1`,
		`orch_node_pair_packets_total{from="n1",to="n2"} 9`,
		`orch_nodes{state="down"} 1`,
		`orch_nodes{state="ready"} 1`,
		"orch_raft_applied_index{} 41",
		"orch_raft_commit_index{} 42",
		"orch_raft_peers{} 0",
		`orch_raft_state{state="candidate"} 0`,
		`orch_raft_state{state="follower"} 0`,
		`orch_raft_state{state="leader"} 1`,
		"orch_raft_term{} 3",
		`orch_tasks{service="blog_web",state="running"} 1`,
		`orch_verdicts_total{verdict="delivered"} 8`,
		"orch_view_index{} 42",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A worker that has not heard of its cluster yet has less to tell.
func TestScrapeEarly(t *testing.T) {
	src := sources()
	src.View = func() *api.Snapshot { return nil }
	src.Raft = func() (consensus.Stats, bool) { return consensus.Stats{}, false }
	got := scrape(t, src)
	if got["orch_raft_term"] != nil || got["orch_nodes"] != nil {
		t.Error("it tells what it cannot know")
	}
	if pairs := lines(got["orch_node_pair_packets_total"]); len(pairs) != 2 || !strings.Contains(pairs[0], `from="a",to="192.0.2.2"`) {
		t.Error(pairs)
	}
}

// docs/metrics.md has each metric, with its labels and what it says.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, family := range scrape(t, sources()) {
		var labels []string
		for _, l := range family.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		if row := "| `" + name + "` | " + strings.Join(labels, ", ") + " | " + family.GetHelp() + " |"; !strings.Contains(string(text), row) {
			t.Errorf("docs/metrics.md does not have\n%s", row)
		}
	}
}

// lines are the metrics of a family in the form NAME{LABELS} VALUE, in order.
func lines(family *dto.MetricFamily) (list []string) {
	for _, m := range family.GetMetric() {
		list = append(list, family.GetName()+labelsOf(m)+" "+valueOf(m))
	}
	slices.Sort(list)
	return list
}

func labelsOf(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.Label {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// valueOf is a number; of a histogram its first two buckets and its last.
func valueOf(m *dto.Metric) string {
	h := m.GetHistogram()
	if h == nil {
		return fmt.Sprint(m.GetCounter().GetValue() + m.GetGauge().GetValue())
	}
	var buckets []string
	for i, b := range h.Bucket {
		if i < 2 || i == len(h.Bucket)-2 { // the last is that without a limit
			limit := time.Duration(math.Round(b.GetUpperBound() * float64(time.Second)))
			buckets = append(buckets, fmt.Sprintf("%d up to %v", b.GetCumulativeCount(), limit))
		}
	}
	return fmt.Sprintf("%d in %v s: %s", h.GetSampleCount(), h.GetSampleSum(), strings.Join(buckets, ", "))
}
