package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

// The epoch is that of the group that the manager is in, whatever comes between.
func TestEpochOfAGroupThatDidNotBegin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin error
		want  uint64
	}{
		{"it began", nil, 8},
		{"it did not", fmt.Errorf("recover: %w: disk full", consensus.ErrAsBefore), 3},
		{"it began, and then failed", consensus.ErrNoQuorum, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			id, _ := founded(t, dir)
			d := &daemon{options: options{stateDir: dir}, id: *id}
			d.id.Epoch = 3
			err := d.enterEpoch(8, func() error {
				if d.epoch() != 8 {
					t.Errorf("it begins in epoch %d", d.epoch())
				}
				return tt.begin
			})
			kept, loadErr := loadIdentity(dir)
			if !errors.Is(err, tt.begin) || loadErr != nil || d.epoch() != tt.want || kept.Epoch != tt.want {
				t.Errorf("epoch %d, on disk %+v, errors %v, %v", d.epoch(), kept, err, loadErr)
			}
		})
	}
}

// Two groups that begin from the same backup, or from one older than a group that
// began since, are told from each other.
func TestLaterEpoch(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	first, second := laterEpoch(now, 0), laterEpoch(now.Add(time.Minute), 0)
	if first < 1 || second <= first {
		t.Errorf("a backup of epoch 0 is restored in %d, and then in %d", first, second)
	}
	if got := laterEpoch(now, first, second); got <= second {
		t.Errorf("%d comes after %d: the clock went back", got, second)
	}
	if got := laterEpoch(time.Unix(-1, 0), 3); got != 4 {
		t.Errorf("%d comes after 3, by a clock that was never set", got)
	}
}

// A manager goes on alone only where nothing is known that it would destroy.
func TestObjection(t *testing.T) {
	snap := &api.Snapshot{Nodes: map[api.NodeID]*api.Node{"m2": {ID: "m2", Hostname: "two"}}}
	own := api.Group{Epoch: 1, Term: 3, Last: 100}
	gone := api.SurveyedManager{Name: "gone"}
	with := func(g api.Group) api.SurveyedManager {
		return api.SurveyedManager{Name: "two", Answers: true, Group: g}
	}
	tests := []struct {
		name   string
		own    api.Group
		others []api.SurveyedManager
		want   string // "": none
	}{
		{"the others are gone", own, []api.SurveyedManager{gone, gone}, ""},
		{"it follows a leader", api.Group{Epoch: 1, Term: 3, Last: 100, Leader: "m2"}, []api.SurveyedManager{gone, gone}, "have a leader, two"},
		{"another does", own, []api.SurveyedManager{with(api.Group{Epoch: 1, Term: 3, Last: 90, Leader: "m2"}), gone, gone, gone}, "have a leader, two"},
		{"a quorum answers", own, []api.SurveyedManager{with(api.Group{Epoch: 1, Term: 3, Last: 90}), gone}, "2 of 3 managers answer"},
		{"another has less", own, []api.SurveyedManager{with(api.Group{Epoch: 1, Term: 3, Last: 90}), gone, gone, gone}, ""},
		{"another has more", own, []api.SurveyedManager{with(api.Group{Epoch: 1, Term: 3, Last: 101}), gone, gone, gone}, "two answers, and its log has more"},
		{"another has a later term", own, []api.SurveyedManager{with(api.Group{Epoch: 1, Term: 4, Last: 50}), gone, gone, gone}, "two answers, and its log has more"},
		{"another went on already", own, []api.SurveyedManager{with(api.Group{Epoch: 2, Term: 1, Last: 5}), gone, gone, gone}, "begun anew already, on two"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := objection(snap, tt.own, tt.others)
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("it says %q, want %q", got, tt.want)
			}
		})
	}
}
