package dataplane

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// Kernels before 6.8 have 512 bytes of stack for a program and the calls from it on,
// each rounded up. The one that runs here need not mind, but knows what each takes.
func TestStackOfOlderKernels(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const limit, granule = 512, 32
	spec, err := prepareSpec(Config{}.withDefaults(), 1)
	if err != nil {
		t.Fatal(err)
	}
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}}
	all, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	for name, program := range all.Programs {
		_, log, _ := strings.Cut(program.VerifierLog, "stack depth ")
		log, _, _ = strings.Cut(log, "\n")
		var functions []string // in the order of the depths
		calls := make(map[string][]string)
		for _, ins := range spec.Programs[name].Instructions {
			if ins.Symbol() != "" {
				functions = append(functions, ins.Symbol())
			}
			if ins.IsFunctionCall() {
				caller := functions[len(functions)-1]
				calls[caller] = append(calls[caller], ins.Reference())
			}
		}
		depths := strings.Split(log, "+")
		if len(depths) != len(functions) { // it left out what is never called
			t.Logf("%s: the kernel says what some of %d functions take: %q", name, len(functions), log)
			continue
		}
		var deepest func(function string) (int, string)
		deepest = func(function string) (depth int, way string) {
			own, err := strconv.Atoi(strings.TrimSpace(depths[slices.Index(functions, function)]))
			if err != nil {
				t.Fatal(err)
			}
			for _, called := range calls[function] {
				if d, w := deepest(called); d > depth {
					depth, way = d, " -> "+w
				}
			}
			return depth + (max(own, 1)+granule-1)/granule*granule, function + " " + strconv.Itoa(own) + way
		}
		depth, way := deepest(name)
		t.Logf("%s: %d bytes: %s", name, depth, way)
		if depth > limit {
			t.Errorf("%s takes %d bytes of stack, and %d are allowed: %s", name, depth, limit, way)
		}
	}
}

// What the verifier does takes a node that starts its time, seconds on a small one, and
// other kernels' verifiers do several times as much before they refuse at a million.
func TestVerifierHasLittleToDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const limit = 100_000
	spec, err := prepareSpec(Config{}.withDefaults(), 1)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	for name, program := range all.Programs {
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		verified, known := info.VerifiedInstructions()
		if !known {
			t.Skip("the kernel does not say how much its verifier did (before Linux 5.16)")
		}
		t.Logf("%s: %d instructions", name, verified)
		if verified > limit {
			t.Errorf("%s: the verifier followed %d instructions, want at most %d", name, verified, limit)
		}
	}
}
