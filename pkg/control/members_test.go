package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

func (p *peer) setRole(ctx context.Context, node api.NodeID, role api.Role) error {
	_, err := rpc.Call[api.UpdateNodeRequest, api.Empty](ctx, p.client, api.ProcUpdateNode, &api.UpdateNodeRequest{Node: string(node), Role: role})
	return err
}

func (p *peer) removeNode(ctx context.Context, node api.NodeID, force bool) error {
	_, err := rpc.Call[api.RemoveNodeRequest, api.Empty](ctx, p.client, api.ProcRemoveNode, &api.RemoveNodeRequest{Node: string(node), Force: force})
	return err
}

// awaitMembers waits until the Raft group is these, all with a vote.
func (g *group) awaitMembers(t *testing.T, want ...*peer) {
	t.Helper()
	var ids []api.NodeID
	for _, p := range want {
		ids = append(ids, p.node.ID)
	}
	slices.Sort(ids)
	until(t, "the group follows the roles", func() error {
		for _, p := range want {
			var got []api.NodeID
			for _, m := range p.Replica.Raft.Stats().Peers {
				if m.Voter {
					got = append(got, m.ID)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(ids, got); diff != "" {
				return fmt.Errorf("by %s (-want +got):\n%s", p.node.Hostname, diff)
			}
		}
		return nil
	})
}

// The leader itself can be demoted, by any manager: another leads first.
func TestRolesAndMembers(t *testing.T) {
	g := newGroup(t, 3)
	leader, followers := g.leader(t), g.followers(t)
	if err := followers[0].setRole(deadline(t), leader.node.ID, api.RoleWorker); err != nil {
		t.Fatal(err)
	}
	g.awaitMembers(t, followers...)
	leader.stop()
	g.managers = followers

	// It comes back as a manager, and a fourth joins.
	g.call(t, func(p *peer) error { return p.setRole(deadline(t), leader.node.ID, api.RoleManager) })
	if err := leader.Replica.Raft.Shutdown(); err != nil {
		t.Fatal(err)
	}
	again := g.run(t, leader.node.ID, t.TempDir(), leader.node.APIAddr(), api.RoleManager)
	g.joinGroup(t, again)
	fourth := g.add(t)
	g.awaitMembers(t, followers[0], followers[1], again, fourth)

	// Removed, it is known no more.
	if err := followers[1].removeNode(deadline(t), fourth.node.ID, false); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a node that is up was removed without --force: %v", err)
	}
	if err := followers[1].removeNode(deadline(t), fourth.node.ID, true); err != nil {
		t.Error(err)
	}
	g.awaitMembers(t, followers[0], followers[1], again)
	if err := fourth.label(deadline(t), fourth.node.ID, "x"); api.CodeOf(err) == "" || err == nil {
		t.Errorf("a manager that was removed has a say: %v", err)
	}
}

func TestManagersThatMayNotBeLost(t *testing.T) {
	t.Run("the only one", func(t *testing.T) {
		g := newGroup(t, 1)
		only := g.leader(t)
		for what, err := range map[string]error{
			"demote": only.setRole(deadline(t), only.node.ID, api.RoleWorker),
			"remove": only.removeNode(deadline(t), only.node.ID, true),
		} {
			if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "is the only manager") {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Run("one of two that answer", func(t *testing.T) {
		g := newGroup(t, 3)
		leader, followers := g.leader(t), g.followers(t)
		down := followers[0]
		down.stop()
		g.commit(t, func(snap *api.Snapshot) []api.Change {
			next := *snap.Cluster
			next.LeaseTimeout = 3 * time.Second
			return []api.Change{{Cluster: &next}}
		})
		until(t, "its lease has run out", func() error {
			if state := leader.Replica.Snapshot().Nodes[down.node.ID].State; state != api.NodeDown {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
		want := fmt.Sprintf("without %s there would be 2 managers, of which 2 must answer, and only 1 would (%s does not answer)",
			followers[1].node.Hostname, down.node.Hostname)
		err := leader.setRole(deadline(t), followers[1].node.ID, api.RoleWorker)
		if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), want) {
			t.Errorf("demote: %v, want %q", err, want)
		}
		if _, err := leader.Depart(t.Context(), &api.DepartRequest{Node: followers[1].node.ID}); err == nil {
			t.Error("a manager that is needed left, by nobody's call")
		}
		// The one that is down may go, and then the other.
		if err := leader.removeNode(deadline(t), down.node.ID, false); err != nil {
			t.Error(err)
		}
		g.awaitMembers(t, leader, followers[1])
		g.call(t, func(*peer) error { return leader.setRole(deadline(t), followers[1].node.ID, api.RoleWorker) })
		g.awaitMembers(t, leader)
	})
}

// Two managers that each may be lost may not both be: the second is counted without
// the first.
func TestDemotedAtTheSameTime(t *testing.T) {
	g := newGroup(t, 3)
	followers := g.followers(t)
	down := g.add(t)
	down.stop()
	g.managers = slices.DeleteFunc(g.managers, func(p *peer) bool { return p == down })
	leader := g.leader(t)
	until(t, "the leader misses it", func() error {
		if leader.answers(down.node) {
			return fmt.Errorf("it answers")
		}
		return nil
	})
	var both sync.WaitGroup
	var refused atomic.Int32
	for _, p := range followers {
		both.Go(func() {
			err := leader.setRole(deadline(t), p.node.ID, api.RoleWorker)
			switch {
			case err == nil && leader.Replica.Raft.Stats().Has(p.node.ID):
				t.Errorf("%s was demoted and is in the group", p.node.Hostname)
			case api.CodeOf(err) == api.CodeConflict:
				refused.Add(1)
			case err != nil:
				t.Error(err)
			}
		})
	}
	both.Wait()
	if n := refused.Load(); n != 1 {
		t.Errorf("%d of 2 demotions were refused", n)
	}
}

// A node that leaves is drained first, and then is in no list and in no group.
func TestDepart(t *testing.T) {
	g := newGroup(t, 3)
	leader, leaver := g.leader(t), g.followers(t)[0]
	depart := func(prepare bool) error {
		_, err := rpc.Call[api.DepartRequest, api.Empty](deadline(t), leaver.client, api.ProcDepart, &api.DepartRequest{Node: leaver.node.ID, Prepare: prepare})
		return err
	}
	if err := depart(true); err != nil {
		t.Fatal(err)
	}
	if now := leader.Replica.Snapshot().Nodes[leaver.node.ID]; now.Availability != api.AvailabilityDrain || now.Role != api.RoleManager {
		t.Errorf("prepared to leave it is %+v", now)
	}
	if err := depart(false); err != nil {
		t.Fatal(err)
	}
	if leader.Replica.Snapshot().Nodes[leaver.node.ID] != nil || leader.Replica.Raft.Stats().Has(leaver.node.ID) {
		t.Error("it has left and is still there")
	}
}
