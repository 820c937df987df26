package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/lab"
)

var orchProgram string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces and mount file systems: run them as root")
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := sweep(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "remove what killed runs left:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "orch-faults-"+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	orchProgram = filepath.Join(dir, "orch")
	build := exec.CommandContext(ctx, "go", "build", "-o", orchProgram, "github.com/orch-dev/orch/cmd/orch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build orch: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const labPrefix = "faults-"

// sweep removes the labs of runs of these tests whose process is gone.
func sweep(ctx context.Context) error {
	names, err := lab.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		rest, ours := strings.CutPrefix(name, labPrefix)
		pid, err := strconv.Atoi(rest[strings.LastIndex(rest, "-")+1:])
		if !ours || err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := takeDisks(name); err != nil {
			return err
		}
		if err := lab.Down(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// length is how long a test that can go on for any time does.
func length(t *testing.T, short time.Duration) time.Duration {
	t.Helper()
	value := os.Getenv("ORCH_FAULTS")
	if value == "" {
		return short
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatalf("ORCH_FAULTS: %v", err)
	}
	return d
}

// newRand is a source of choices that can be repeated.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if value := os.Getenv("ORCH_SEED"); value != "" {
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			t.Fatalf("ORCH_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("ORCH_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
