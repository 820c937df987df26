package e2e

import (
	"bytes"
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/orch-dev/orch/pkg/api"
)

// scrape is what a node's /metrics answers.
type scrape map[string]*dto.MetricFamily

func (c *cluster) scrape(t *testing.T, node string) scrape {
	t.Helper()
	text, err := fetch(c.outside().http(requestTime), "http://"+c.addr(node, api.MetricsPort)+"/metrics")
	if err != nil {
		t.Fatalf("scrape %s: %v", node, err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("scrape %s: %v", node, err)
	}
	return families
}

// sum adds the values of a metric that have all of the labels (key, value, ...).
func (s scrape) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, m := range s[name].GetMetric() {
		if has(m, labels) {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}

func has(m *dto.Metric, labels []string) bool {
	values := map[string]string{}
	for _, l := range m.GetLabel() {
		values[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if values[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// drops are the counts of dropped packets, by reason.
func (s scrape) drops() map[string]float64 {
	counts := map[string]float64{}
	for _, m := range s["orch_drops_total"].GetMetric() {
		counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	return counts
}

func testMetrics(t *testing.T, c *cluster) {
	leaders := 0.0
	for _, node := range c.names() {
		const connections = 30
		port := []string{"service", web, "port", fmt.Sprint(blogPort)}
		before := c.scrape(t, node)
		if _, err := c.outside().tally(func() (identity, error) { return c.outside().whoami(c.addr(node, blogPort)) }, connections); err != nil {
			t.Fatal(err)
		}
		after := c.scrape(t, node)
		grown := func(name string, labels ...string) float64 {
			return after.sum(name, labels...) - before.sum(name, labels...)
		}
		for _, what := range []string{"frontend", "backend"} {
			if got := grown("orch_"+what+"_new_flows_total", port...); got != connections {
				t.Errorf("%s: %v new flows of the %s counted, want %d", node, got, what, connections)
			}
			packets := grown("orch_"+what+"_packets_total", port...)
			if packets < 4*connections || packets > 20*connections {
				t.Errorf("%s: %v packets of the %s counted for %d connections", node, packets, what, connections)
			}
			if got := grown("orch_"+what+"_bytes_total", port...); got < 60*packets || got > 1500*packets {
				t.Errorf("%s: %v bytes of the %s counted in %v packets", node, got, what, packets)
			}
		}
		if got := grown("orch_frontend_handshake_seconds", port...); got != connections {
			t.Errorf("%s: %v handshakes counted, want %d", node, got, connections)
		}
		if got := grown("orch_node_pair_new_flows_total", "from", node); got < connections {
			t.Errorf("%s: %v flows to all nodes counted, want %d or more", node, got, connections)
		}
		if after["orch_drops_total"] == nil || after["orch_verdicts_total"] == nil {
			t.Errorf("%s counts no drops or verdicts", node)
		}
		if got := after.sum("orch_raft_state"); got != 1 {
			t.Errorf("%s is in %v states of Raft", node, got)
		}
		leaders += after.sum("orch_raft_state", "state", "leader")
		if got := after.sum("orch_raft_peers"); got != 3 {
			t.Errorf("%s counts %v members of the Raft group", node, got)
		}
		if got := after.sum("orch_nodes", "state", "ready"); got != 3 {
			t.Errorf("%s counts %v nodes that are ready", node, got)
		}
		here := 0.0
		for _, task := range c.mustServe(t, web) {
			if task.NodeName == node {
				here++
			}
		}
		if got := after.sum("orch_tasks", "service", web, "state", "running"); got != here {
			t.Errorf("%s counts %v running tasks of %s, want %v", node, got, web, here)
		}
	}
	if leaders != 1 {
		t.Errorf("%v managers say that they lead", leaders)
	}
}
