package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Recover makes this manager the cluster's only one, with what is in its own log:
// when most of the others are lost. The others are members no more, and what they
// have is told from what this one has by its epoch.
func (d *daemon) Recover(ctx context.Context, req *api.RecoverRequest) (*api.Survey, error) {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	survey, err := d.Survey(ctx, &api.Empty{})
	if err != nil {
		return nil, err
	}
	if survey.Objection != "" && !req.Force {
		return nil, api.Errorf(api.CodeConflict, "%s (or give --force)", survey.Objection)
	}
	g := d.manages()
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	var kept consensus.Survived
	err = d.enterEpoch(survey.Epoch, func() error {
		g.tracker.Forget()
		kept, err = g.replica.Raft.Recover(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin anew without the other managers: %w", err)
	}
	survey.Last, survey.Committed, survey.Written = kept.Last, kept.Committed, kept.Written
	d.log.Warn("the managers' group began anew with this node alone", "epoch", survey.Epoch, "kept", kept.Last)
	return survey, g.beAlone(ctx, survey.Epoch)
}

var errNothingKept = api.Errorf(api.CodeInvalid, "this manager has nothing of the cluster's state: run this on another that is left, or restore a backup (`orch cluster restore`)")

// Survey says what Recover would do.
func (d *daemon) Survey(ctx context.Context, _ *api.Empty) (*api.Survey, error) {
	g, err := d.asManager()
	if err != nil {
		return nil, err
	}
	kept, err := g.replica.Raft.Survivor()
	if err != nil {
		return nil, err
	}
	snap := g.replica.Snapshot()
	if snap.Cluster == nil && !g.replica.Raft.Stats().Votes(g.node.id.Node) {
		return nil, errNothingKept
	}
	epochs := []uint64{d.epoch()}
	if snap.Cluster != nil { // else its log was not gone through since its start, without a leader to say how far
		epochs = append(epochs, snap.Cluster.Epoch)
	}
	survey := &api.Survey{
		Epoch: laterEpoch(time.Now(), epochs...),
		Last:  kept.Last, Committed: kept.Committed, Written: kept.Written,
		Managers: d.askOthers(ctx, g.voters(snap)),
	}
	own, err := d.Group(ctx, &api.Empty{})
	if err != nil {
		return nil, err
	}
	survey.Objection = objection(snap, *own, survey.Managers)
	return survey, nil
}

// objection says why a manager should not go on alone, "" if nothing is known.
func objection(snap *api.Snapshot, own api.Group, others []api.SurveyedManager) string {
	answer := 1
	for _, o := range others {
		switch {
		case !o.Answers:
			continue
		case o.Group.Epoch > own.Epoch:
			return fmt.Sprintf("the managers' group has begun anew already, on %s: join this node to that", o.Name)
		case o.Group.NewerThan(own):
			return fmt.Sprintf("%s answers, and its log has more (up to entry %d, this one up to %d): run `orch cluster recover` there", o.Name, o.Group.Last, own.Last)
		}
		answer++
	}
	name := func(id api.NodeID) string {
		if n := snap.Nodes[id]; n != nil {
			return n.Hostname
		}
		return string(id)
	}
	for _, led := range append([]api.Group{own}, groups(others)...) {
		if led.Leader != "" {
			return fmt.Sprintf("the managers have a leader, %s: nothing is lost. A manager that is gone is removed with `orch node rm`", name(led.Leader))
		}
	}
	if all := len(others) + 1; answer >= api.Quorum(all) {
		return fmt.Sprintf("%d of %d managers answer, and %d are a quorum: they will choose a leader by themselves (see `orch info`)", answer, all, api.Quorum(all))
	}
	return ""
}

func groups(managers []api.SurveyedManager) []api.Group {
	var out []api.Group
	for _, m := range managers {
		if m.Answers {
			out = append(out, m.Group)
		}
	}
	return out
}

// aliveTimeout bounds the wait for managers that may be gone.
const aliveTimeout = 2 * time.Second

// voters are the others that vote in the group.
func (g *managing) voters(snap *api.Snapshot) []api.SurveyedManager {
	list := []api.SurveyedManager{}
	for _, p := range g.replica.Raft.Stats().Peers {
		if p.ID == g.node.id.Node || !p.Voter {
			continue
		}
		other := api.SurveyedManager{Node: p.ID, Name: string(p.ID), Addr: p.Addr}
		if n := snap.Nodes[p.ID]; n != nil {
			other.Name = n.Hostname
		}
		list = append(list, other)
	}
	return list
}

// askOthers asks managers what they have.
func (d *daemon) askOthers(ctx context.Context, others []api.SurveyedManager) []api.SurveyedManager {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for i := range others {
		asked.Go(func() {
			said, err := d.groupOf(ctx, others[i].Addr)
			if err == nil {
				others[i].Group = *said
			}
			others[i].Answers = err == nil || errors.As(err, new(*api.Error))
		})
	}
	asked.Wait()
	return others
}

// Group says which group of managers this one is in, and how far it is.
func (d *daemon) Group(context.Context, *api.Empty) (*api.Group, error) {
	g, err := d.asManager()
	if err != nil {
		return nil, err
	}
	leader, _, _ := g.replica.Raft.Leader()
	last, term := g.replica.Raft.Newest()
	return &api.Group{Epoch: d.identity().Epoch, Leader: leader, Term: term, Last: last}, nil
}

// asManager returns what the node runs as a manager, or says why there is none.
func (d *daemon) asManager() (*managing, error) {
	if d.currentMember() == nil {
		return nil, d.notMember()
	}
	if g := d.manages(); g != nil {
		return g, nil
	}
	return nil, api.Errorf(api.CodeInvalid, "node %s is a worker: run this on a manager; if none is left, restore a backup (`orch cluster restore`)", d.hostname)
}

func (d *daemon) groupOf(ctx context.Context, addr string) (*api.Group, error) {
	return rpc.Call[api.Empty, api.Group](ctx, d.peers.Manager(addr), api.ProcGroup, &api.Empty{})
}
