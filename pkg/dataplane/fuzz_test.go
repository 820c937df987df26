package dataplane

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/tests/anything"
)

// fuzzedMaps are those that the programs, or an older orch, have written.
var fuzzedMaps = []string{
	"node_config", "members", "endpoints", "net_pairs", "frontends", "frontends6", "backends", "flows", "flows6", "sessions", "sessions6",
}

// FuzzMaps looks for contents of the kernel's maps that make a node panic which is
// asked about its network, and for questions that do.
func FuzzMaps(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("it makes kernel maps: root is needed")
	}
	cfg := Config{MaxFlows: 64, MaxSessions: 64, MaxEndpoints: 64, MaxMembers: 64, MaxFrontends: 64, MaxBackends: 64}.withDefaults()
	spec, err := prepareSpec(cfg, 1)
	if err != nil {
		f.Fatal(err)
	}
	maps, _, err := openMaps(f.TempDir(), spec)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { closeMaps(maps) })
	f.Add([]byte("one entry of each, of these bytes"), []byte{1, 2, 3, 4})
	f.Add([]byte{10, 128, 0, 1, 0, 0, 0, 1, 192, 0, 2, 1, 6, 0, 80, 0}, []byte{0, 3, 0, 5, 0, 1, 200, 1})
	f.Fuzz(func(t *testing.T, content, question []byte) {
		d := &Dataplane{cfg: cfg, uplink: 1, spec: spec, maps: maps}
		for _, name := range fuzzedMaps {
			fillMap(t, maps[name], content)
		}
		words := []string{"10.128.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.128.0.1", "10.128.0.1:80", "[::1]:80", "tcp", "udp"}
		trace, err := anything.Of[api.NetTraceRequest](question, words...)
		if err != nil {
			t.Fatal(err)
		}
		flows, err := anything.Of[api.NetFlowsRequest](question, words...)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // as found, and as known
			list, err := d.Flows(*flows)
			if err == nil && len(list.Flows) > list.Total {
				t.Errorf("%d flows of %d", len(list.Flows), list.Total)
			}
			_, frontendsErr := d.Frontends()
			_, traceErr := d.Trace(*trace)
			for _, err := range []error{err, frontendsErr, traceErr} {
				if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) && api.CodeOf(err) != api.CodeInvalid {
					t.Error(err)
				}
			}
			if d.have, err = d.read(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Sweep(); err != nil {
			t.Error(err)
		}
	})
}

// fillMap leaves a map with one entry, made of the content again and again.
func fillMap(t *testing.T, m *ebpf.Map, content []byte) {
	t.Helper()
	repeated := func(n uint32) []byte {
		b := make([]byte, n)
		for i := range b {
			if len(content) > 0 {
				b[i] = content[i%len(content)]
			}
		}
		return b
	}
	key := repeated(m.KeySize())
	if m.Type() == ebpf.Array {
		clear(key)
	} else {
		var old []byte
		for m.NextKey(nil, &old) == nil {
			if err := m.Delete(old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := m.Put(key, repeated(m.ValueSize())); err != nil {
		t.Fatalf("fill %s: %v", m, err)
	}
}
