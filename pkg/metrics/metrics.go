// Package metrics serves what a node counts in the format that Prometheus
// scrapes: the packets of the data plane, the state of Raft and of tasks.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// Sources are what is read at each scrape.
type Sources struct {
	Node      api.NodeID
	Version   string
	Dataplane interface {
		Stats() (dataplane.Stats, error)
	}
	// View is the cluster as the node knows it, nil before it has heard of it.
	View func() *api.Snapshot
	// Raft is of a manager, not ok on a worker.
	Raft func() (stats consensus.Stats, ok bool)
}

// What strangers may have of a node, to all of whom its metrics are open: so many
// connections and scrapes at a time, each of them for so long.
const (
	maxConnections = 64
	maxScrapes     = 4
	scrapeTime     = 10 * time.Second
	idleTime       = 30 * time.Second
)

// Serve answers GET /metrics on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, src Sources) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&dataplaneCollector{src},
		&clusterCollector{src},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime,
	}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: idleTime, WriteTimeout: idleTime, IdleTimeout: idleTime}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(&bounded{l, make(chan struct{}, maxConnections)}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %s: %w", l.Addr(), err)
	}
	return nil
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("orch_"+name, help, labels, nil)
}

var (
	frontendLabels = []string{"service", "frontend", "port", "protocol"}
	pairLabels     = []string{"from", "to"}
	backendLabels  = []string{"service", "frontend", "port", "protocol", "backend", "backend_port"}

	frontendPackets = describe("frontend_packets_total", "Packets of clients to a frontend through this node.", frontendLabels...)
	frontendBytes   = describe("frontend_bytes_total", "Bytes of those packets, from the IP header on.", frontendLabels...)
	frontendFlows   = describe("frontend_new_flows_total", "New flows to a frontend through this node.", frontendLabels...)
	backendPackets  = describe("backend_packets_total", "Packets that this node sent to a backend of a frontend.", backendLabels...)
	backendBytes    = describe("backend_bytes_total", "Bytes of those packets, from the IP header on.", backendLabels...)
	backendFlows    = describe("backend_new_flows_total", "New flows that this node gave to a backend.", backendLabels...)
	handshakes      = describe("frontend_handshake_seconds", "How long connections of clients took to open through this node: from the SYN to the client's first acknowledgment.", frontendLabels...)
	pairPackets     = describe("node_pair_packets_total", "Packets of clients that entered at one node, sent to backends on another, or the same.", pairLabels...)
	pairBytes       = describe("node_pair_bytes_total", "Bytes of those packets, from the IP header on.", pairLabels...)
	pairFlows       = describe("node_pair_new_flows_total", "New flows that entered at one node, given to backends on another, or the same.", pairLabels...)
	drops           = describe("drops_total", "Packets that the data plane dropped, by reason.", "reason")
	verdicts        = describe("verdicts_total", "What became of all other packets that the data plane looked at.", "verdict")
)

// dataplaneCollector reads the kernel's counters.
type dataplaneCollector struct{ Sources }

func (c *dataplaneCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{frontendPackets, frontendBytes, frontendFlows, backendPackets, backendBytes, backendFlows, handshakes, pairPackets, pairBytes, pairFlows, drops, verdicts} {
		ch <- d
	}
}

func (c *dataplaneCollector) Collect(ch chan<- prometheus.Metric) {
	stats, err := c.Dataplane.Stats()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(drops, err)
		return
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, f := range stats.Frontends {
		labels := append([]string{f.Service}, frontendOf(f.FrontendKey)...)
		count(frontendPackets, f.Packets, labels...)
		count(frontendBytes, f.Bytes, labels...)
		count(frontendFlows, f.Flows, labels...)
		ch <- handshakeHistogram(f.Handshakes, labels)
	}
	for _, b := range stats.Backends {
		labels := append([]string{b.Service}, frontendOf(b.Frontend)...)
		labels = append(labels, b.Addr.String(), strconv.Itoa(int(b.Port)))
		count(backendPackets, b.Packets, labels...)
		count(backendBytes, b.Bytes, labels...)
		count(backendFlows, b.Flows, labels...)
	}
	names := c.hostnames()
	for _, p := range stats.Pairs {
		labels := []string{names.self, names.of(p.Node)}
		count(pairPackets, p.Packets, labels...)
		count(pairBytes, p.Bytes, labels...)
		count(pairFlows, p.Flows, labels...)
	}
	for reason, n := range stats.Drops {
		count(drops, n.Packets, reason)
	}
	for verdict, n := range stats.Verdicts {
		count(verdicts, n.Packets, verdict)
	}
}

// handshakeHistogram is cumulative, as Prometheus wants it.
func handshakeHistogram(h dataplane.Handshakes, labels []string) prometheus.Metric {
	buckets, total := make(map[float64]uint64), uint64(0)
	for i, n := range h.Counts {
		if total += n; i < len(h.Counts)-1 {
			buckets[(dataplane.HandshakeLeast << i).Seconds()] = total
		}
	}
	return prometheus.MustNewConstHistogram(handshakes, total, h.Total.Seconds(), buckets, labels...)
}

// hostnames are the nodes' names by address.
type hostnames struct {
	self   string
	byAddr map[netip.Addr]string
}

func (s Sources) hostnames() hostnames {
	h := hostnames{self: string(s.Node), byAddr: make(map[netip.Addr]string)}
	view := s.View()
	if view == nil {
		return h
	}
	for _, n := range view.Nodes {
		h.byAddr[n.Addr] = n.Hostname
		if n.ID == s.Node {
			h.self = n.Hostname
		}
	}
	return h
}

// of is a node's name, or its address where it is not known (any more).
func (h hostnames) of(addr netip.Addr) string {
	if name, ok := h.byAddr[addr]; ok {
		return name
	}
	return addr.String()
}

// frontendOf are the labels of a frontend: address ("any" for every address of
// the node), port and protocol (empty for a virtual IP, which takes all).
func frontendOf(k api.FrontendKey) []string {
	if k.Virtual() {
		return []string{k.Addr.String(), "", ""}
	}
	addr := "any"
	if k.Addr.IsValid() && !k.Addr.IsUnspecified() {
		addr = k.Addr.String()
	}
	return []string{addr, strconv.Itoa(int(k.Port)), string(k.Protocol)}
}

var (
	buildInfo   = describe("build_info", "Always 1.", "version")
	raftState   = describe("raft_state", "1 for the state that this manager is in.", "state")
	raftTerm    = describe("raft_term", "The term that this manager is in.")
	raftApplied = describe("raft_applied_index", "The newest entry applied to this manager's state.")
	raftCommit  = describe("raft_commit_index", "The newest entry known to be on a quorum.")
	raftPeers   = describe("raft_peers", "Members of the Raft group.")
	viewIndex   = describe("view_index", "The index of the cluster state that this node knows.")
	nodes       = describe("nodes", "Nodes of the cluster by state.", "state")
	tasks       = describe("tasks", "Tasks on this node by state.", "service", "state")
)

// clusterCollector reads the control plane's state.
type clusterCollector struct{ Sources }

func (c *clusterCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, raftState, raftTerm, raftApplied, raftCommit, raftPeers, viewIndex, nodes, tasks} {
		ch <- d
	}
}

func (c *clusterCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildInfo, 1, c.Version)
	if s, ok := c.Raft(); ok {
		for _, state := range []string{"leader", "follower", "candidate"} {
			is := 0.0
			if s.State == state {
				is = 1
			}
			gauge(raftState, is, state)
		}
		gauge(raftTerm, float64(s.Term))
		gauge(raftApplied, float64(s.AppliedIndex))
		gauge(raftCommit, float64(s.CommitIndex))
		gauge(raftPeers, float64(len(s.Peers)))
	}
	view := c.View()
	if view == nil {
		return
	}
	gauge(viewIndex, float64(view.Index))
	byState := map[api.NodeState]int{api.NodeReady: 0, api.NodeDown: 0}
	for _, n := range view.Nodes {
		byState[n.State]++
	}
	for state, n := range byState {
		gauge(nodes, float64(n), string(state))
	}
	type key struct {
		service string
		state   api.TaskState
	}
	counts := make(map[key]int)
	for _, t := range view.Tasks {
		if t.NodeID == c.Node {
			counts[key{t.ServiceName, t.Status.State}]++
		}
	}
	for k, n := range counts {
		gauge(tasks, float64(n), k.service, string(k.state))
	}
}
