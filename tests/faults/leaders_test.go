package faults

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// leaders is who led in which term, by what the nodes said of themselves while
// the test ran, and by their logs.
type leaders struct {
	c    *cluster
	mu   sync.Mutex
	term map[uint64]map[string]bool
}

func (c *cluster) watchLeaders(ctx context.Context) *leaders {
	l := &leaders{c: c, term: make(map[uint64]map[string]bool)}
	for _, n := range c.Nodes() {
		go func() {
			for ctx.Err() == nil {
				if info, err := c.info(n.Name); err == nil && info.Raft != nil && strings.EqualFold(info.Raft.State, "leader") {
					l.led(info.Raft.Term, n.Name)
				}
				pause(ctx, 10*time.Millisecond)
			}
		}()
	}
	return l
}

func (l *leaders) led(term uint64, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term[term] == nil {
		l.term[term] = make(map[string]bool)
	}
	l.term[term][node] = true
}

var electionWon = regexp.MustCompile(`election won.*\bterm=(\d+)`)

// check fails the test if two nodes led in one term.
func (l *leaders) check(t *testing.T) {
	t.Helper()
	for _, n := range l.c.Nodes() {
		text, err := os.ReadFile(n.Log())
		must(t, err)
		for _, m := range electionWon.FindAllStringSubmatch(string(text), -1) {
			var term uint64
			if _, err := fmt.Sscan(m[1], &term); err == nil {
				l.led(term, n.Name)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for term, nodes := range l.term {
		if len(nodes) > 1 {
			t.Errorf("in term %d there were %d leaders: %v", term, len(nodes), nodes)
		}
	}
	t.Logf("%d terms had a leader", len(l.term))
	if len(l.term) < 2 {
		t.Error("no fault made another node lead")
	}
}
