package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

const (
	answerBody = "hello\n"
	peerPath   = "/peer" // answers the client's address as the workload sees it
)

// fabricSet holds the fabrics of one run.
type fabricSet struct {
	byNetwork map[string]*fabric
	order     []*fabric
}

// prepare builds the fabric of p's network, unless it is there, and sees that
// the path is what it claims to be.
func (s *fabricSet) prepare(ctx context.Context, p path) error {
	f := s.byNetwork[p.network.name]
	if f == nil {
		var err error
		f, err = newFabric(ctx, p.network.name, p.network.workloadMTU)
		s.byNetwork[p.network.name] = f
		s.order = append(s.order, f)
		if err != nil {
			return err
		}
		if err := serveWorkload(f); err != nil {
			return err
		}
		for _, step := range p.network.build {
			if err := step(ctx, f); err != nil {
				return err
			}
		}
	}
	if err := probe(ctx, f, p); err != nil {
		return fmt.Errorf("%w%s", err, f.logs())
	}
	return nil
}

// close removes every fabric, the newest first.
func (s *fabricSet) close() error {
	var errs []error
	for i := len(s.order) - 1; i >= 0; i-- {
		errs = append(errs, s.order[i].close())
	}
	return errors.Join(errs...)
}

// probe waits until the workload answers over p, then checks the answer, the
// source address the workload sees, and whether the packets pass n1.
func probe(ctx context.Context, f *fabric, p path) error {
	client := &http.Client{
		Transport: &http.Transport{DialContext: dialIn(f.netns(p.from)), DisableKeepAlives: true},
		Timeout:   time.Second,
	}
	get := func(path string) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.target.String()+path, nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}

	if err := untilReady(ctx, func() error { _, err := get("/"); return err }); err != nil {
		return fmt.Errorf("does not answer: %w", err)
	}
	before, err := f.received(1, 2)
	if err != nil {
		return err
	}
	const requests = 8 // so that a packet more or less, of the one before, makes no difference
	for range requests {
		if body, err := get("/"); err != nil || body != answerBody {
			return fmt.Errorf("answers %q, not %q (%w)", body, answerBody, err)
		}
	}
	after, err := f.received(1, 2)
	if err != nil {
		return err
	}
	// A connection with one request has at least three packets each way. n2 gets
	// those to the workload alone, so that n1 gets more by what it sees of replies.
	n1, n2 := after[0]-before[0], after[1]-before[1]
	if p.from == clientHost && (n1 >= 2*requests != p.throughN1 || n1-n2 >= 2*requests != (p.throughN1 && !p.direct)) {
		return fmt.Errorf("n1 received %d packets of %d requests, n2 %d; passes n1: want %t, replies go straight: want %t", n1, requests, n2, p.throughN1, p.direct)
	}
	seen, err := get(peerPath)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(seen); err != nil || hostOf(addr) != p.sees {
		return fmt.Errorf("the workload sees %q, not the address of %s", seen, p.sees)
	}
	return nil
}

// received are the packets that nodes have received, in the order asked for.
func (f *fabric) received(nodes ...int) ([]int, error) {
	var counts []int
	for _, i := range nodes {
		t, err := uplinkReceived(f.netns(nodeHost(i)))
		if err != nil {
			return nil, err
		}
		counts = append(counts, t.packets)
	}
	return counts, nil
}

// untilReady calls try until it succeeds, for readyLimit at most.
func untilReady(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// traffic is what passed a device.
type traffic struct{ bytes, packets int }

// uplinkReceived reads what the namespace's uplink has received.
func uplinkReceived(netns string) (traffic, error) {
	var devices []byte
	err := inNetns(netns, func() (err error) {
		devices, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	if err != nil {
		return traffic{}, err
	}
	for line := range strings.Lines(string(devices)) {
		if counters, ok := strings.CutPrefix(strings.TrimSpace(line), uplink+":"); ok {
			var t traffic
			if _, err := fmt.Sscan(counters, &t.bytes, &t.packets); err != nil {
				return traffic{}, fmt.Errorf("read counters of %s: %w", uplink, err)
			}
			return t, nil
		}
	}
	return traffic{}, fmt.Errorf("no %s in /proc/net/dev", uplink)
}
