package dataplane

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
)

// An idle connection is kept for as long as applications may keep one, a port scan
// or a lost FIN not for much longer than it takes.
func TestPatience(t *testing.T) {
	const (
		established = bpf.OrchSeenSEEN_ESTABLISHED
		finClient   = bpf.OrchSeenSEEN_FIN_CLIENT
		finBackend  = bpf.OrchSeenSEEN_FIN_BACKEND
		rst         = bpf.OrchSeenSEEN_RST
	)
	d := &Dataplane{cfg: Config{UDPIdle: 5 * time.Minute}}
	for _, tt := range []struct {
		name     string
		proto    uint8
		seen     bpf.OrchSeen
		min, max time.Duration
	}{
		{"half-open", unix.IPPROTO_TCP, 0, 5 * time.Second, 30 * time.Second},
		{"established", unix.IPPROTO_TCP, established, 24 * time.Hour, 7 * 24 * time.Hour},
		{"half-closed by the client", unix.IPPROTO_TCP, established | finClient, time.Hour, 2 * time.Hour},
		{"half-closed by the backend", unix.IPPROTO_TCP, established | finBackend, time.Hour, 2 * time.Hour},
		{"closed by both", unix.IPPROTO_TCP, established | finClient | finBackend, 50 * time.Second, 90 * time.Second},
		{"reset", unix.IPPROTO_TCP, established | rst, 50 * time.Second, 90 * time.Second},
		{"refused", unix.IPPROTO_TCP, rst, 50 * time.Second, 90 * time.Second},
		{"UDP", unix.IPPROTO_UDP, 0, 5*time.Minute - 2*time.Second, 5 * time.Minute},
		{"UDP that is answered", unix.IPPROTO_UDP, established, 5*time.Minute - 2*time.Second, 5 * time.Minute},
	} {
		// A tick is 2^30 ns, as in the programs.
		if got := time.Duration(d.patience(tt.proto, tt.seen)) << 30; got < tt.min || got > tt.max {
			t.Errorf("%s: forgotten after %v, want between %v and %v", tt.name, got, tt.min, tt.max)
		}
	}
	if got := (Config{}).withDefaults().UDPIdle; got != DefaultUDPIdle {
		t.Errorf("UDP without a setting: %v, want %v", got, DefaultUDPIdle)
	}
}

// What has been idle for longer than that has ended, and nothing before.
func TestFlowEndsWhenPatienceDoes(t *testing.T) {
	d := &Dataplane{}
	const now = 1 << 20
	key := bpf.OrchFlowKey{Proto: unix.IPPROTO_TCP}
	for idle, want := range map[uint32]bool{ticksTCPIdle: false, ticksTCPIdle + 1: true} {
		if got := d.flowEnded(key, bpf.OrchFlow{Seen: now - idle, Flags: bpf.OrchSeenSEEN_ESTABLISHED}, now); got != want {
			t.Errorf("idle for %d ticks: ended %v, want %v", idle, got, want)
		}
	}
}
