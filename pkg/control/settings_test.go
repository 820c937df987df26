package control

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

func TestUpdateCluster(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	d := func(d time.Duration) *time.Duration { return &d }
	ret := func(r api.Return) *api.Return { return &r }
	for name, req := range map[string]api.UpdateClusterRequest{
		"nothing":                       {},
		"too short a timeout":           {ElectionTimeout: d(time.Millisecond)},
		"too long a timeout":            {ElectionTimeout: d(time.Hour)},
		"a timeout longer than a lease": {ElectionTimeout: d(3 * time.Second), Lease: d(4 * time.Second)},
		"too short a lease":             {Lease: d(time.Second)},
		"too short a certificate life":  {CertificateLife: d(time.Second)},
		"a return that is none":         {Return: ret("nat")},
	} {
		before := s.Replica.Index()
		if _, err := s.UpdateCluster(ctx, &req); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
		if s.Replica.Index() != before {
			t.Errorf("%s: the state was changed", name)
		}
	}

	res := must(s.UpdateCluster(ctx, &api.UpdateClusterRequest{ElectionTimeout: d(time.Second), Lease: d(10 * time.Second), CertificateLife: d(time.Hour), Return: ret(api.ReturnDSR)}))
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "cannot tell whether its disk is fast enough") { // the test answers no such call
		t.Errorf("warnings: %q", res.Warnings)
	}
	c := s.Replica.Snapshot().Cluster
	if c.ElectionTimeout != time.Second || c.LeaseTimeout != 10*time.Second || c.CertificateLife != time.Hour || c.LongLease != time.Minute {
		t.Errorf("the state has %v, %v, %v, long lease %v", c.ElectionTimeout, c.LeaseTimeout, c.CertificateLife, c.LongLease)
	}
	settings := must(s.ClusterSettings(ctx, &api.Empty{}))
	if settings.ElectionTimeout != time.Second || settings.Lease != 10*time.Second || settings.CertificateLife != time.Hour || settings.Autolock || settings.Return != api.ReturnDSR {
		t.Errorf("shown: %+v", settings)
	}

	index := s.Replica.Index()
	must(s.UpdateCluster(ctx, &api.UpdateClusterRequest{Lease: d(10 * time.Second)}))
	if s.Replica.Index() != index {
		t.Error("what is so already was written again")
	}
	must(s.UpdateCluster(ctx, &api.UpdateClusterRequest{Lease: d(2 * time.Minute)}))
	if c := s.Replica.Snapshot().Cluster; c.LongLease != 0 || c.ElectionTimeout != time.Second {
		t.Errorf("a longer lease: long lease %v, election timeout %v", c.LongLease, c.ElectionTimeout)
	}
}

// A node is given the gossip keys that it does not go by yet, in answer to its
// report, and no key otherwise.
func TestGossipKeysAreGiven(t *testing.T) {
	s := newSite(t)
	worker := s.member(t, api.RoleWorker)
	report := func(ring string) [][]byte {
		t.Helper()
		req := &api.Report{Node: worker.node.ID, Info: &api.NodeInfo{GossipRing: ring}}
		return must(rpc.Call[api.Report, api.ReportResponse](deadline(t), worker.client, api.ProcReport, req)).GossipKeys
	}
	first := s.Replica.Snapshot().Cluster.GossipRing()
	report(api.GossipRingID(first))
	if keys := report(api.GossipRingID(first)); keys != nil {
		t.Errorf("%d keys are sent that it has", len(keys))
	}
	must(s.RotateGossipKey(t.Context(), &api.Empty{}))
	if _, err := s.RotateGossipKey(t.Context(), &api.Empty{}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("replaced while it is replaced: %v", err)
	}
	keys := report(api.GossipRingID(first))
	if diff := cmp.Diff(s.Replica.Snapshot().Cluster.GossipRing(), keys); diff != "" || len(keys) != 2 || !bytes.Equal(keys[0], first[0]) {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if status := must(s.ClusterSettings(t.Context(), &api.Empty{})); status.Gossip != api.GossipTakes {
		t.Errorf("shown: %+v", status)
	}
}
