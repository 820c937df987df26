package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is one call of a client's.
type operation struct {
	key   string
	write bool
	value string // written
}

// registers are places that each hold a string. What a write that was not
// acknowledged did is not known: it may have happened at any time after.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(operation).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		op := input.(operation)
		if op.write {
			return true, op.value
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string {
		op := input.(operation)
		if op.write {
			return fmt.Sprintf("%s := %q", op.key, op.value)
		}
		return fmt.Sprintf("%s is %q", op.key, output)
	},
}

// history is what clients did and saw.
type history struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	// acknowledged counts writes, unknown those without an answer.
	acknowledged, unknown, reads int
}

const (
	clientCount = 6
	keyCount    = 5
	callLimit   = 8 * time.Second
	// clientPause keeps the history checkable: it is about order, not about load.
	clientPause = 30 * time.Millisecond
)

// record runs clients until ctx ends, and one last read of each register.
func (c *cluster) record(ctx context.Context, rng *rand.Rand) (*history, func()) {
	h := &history{began: time.Now()}
	var wg sync.WaitGroup
	for id := range clientCount {
		rng := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				node := c.Node(1 + rng.IntN(len(c.Nodes()))).Name
				op := operation{key: keyName(rng.IntN(keyCount)), write: rng.IntN(2) == 0}
				if op.write {
					op.value = fmt.Sprintf("%d-%d", id, n)
				}
				_ = h.do(c, id, node, op, callLimit) // it is in the history
				time.Sleep(time.Duration(rng.Int64N(int64(2 * clientPause))))
			}
		})
	}
	return h, wg.Wait
}

// do makes one call, which has so much time, notes it, and returns what it failed
// with.
func (h *history) do(c *cluster, id int, node string, op operation, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	call := time.Since(h.began).Nanoseconds()
	var value string
	var err error
	if op.write {
		err = c.write(ctx, node, op.key, op.value)
	} else {
		value, err = c.read(ctx, node, op.key)
	}
	done := time.Since(h.began).Nanoseconds()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil && op.write:
		h.acknowledged++
	case err == nil:
		h.reads++
	case op.write:
		h.unknown++
		done = time.Hour.Nanoseconds() * 24 // open to the end
	default:
		return err // a read that failed says nothing
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: id, Input: op, Call: call, Output: value, Return: done})
	return err
}

// written is how many writes were acknowledged.
func (h *history) written() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acknowledged
}

// check fails the test unless the history is linearizable.
func (h *history) check(t *testing.T) {
	t.Helper()
	t.Logf("%d writes acknowledged, %d of unknown outcome, %d reads in %.0f s",
		h.acknowledged, h.unknown, h.reads, time.Since(h.began).Seconds())
	if h.acknowledged < 20 || h.reads < 20 {
		t.Errorf("too little was done to tell anything")
	}
	// Each open operation is its own client: nothing follows it in its thread.
	for i := range h.ops {
		h.ops[i].ClientId = i
	}
	result, info := porcupine.CheckOperationsVerbose(registers, h.ops, 2*time.Minute)
	if result == porcupine.Ok {
		return
	}
	picture := fmt.Sprintf("%s/orch-history-%d.html", os.TempDir(), os.Getpid())
	if err := porcupine.VisualizePath(registers, info, picture); err != nil {
		picture = err.Error()
	}
	t.Errorf("the history is not linearizable (%v): %s", result, picture)
}

func keyName(n int) string { return fmt.Sprintf("r%d", n) }
