package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/lab"
)

// What all tests share.
var (
	docker      *engine
	orchProgram string
)

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces and load kernel programs: run them as root")
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if docker, err = openEngine(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "these tests need a Docker Engine and none answers (%v): run `make engine`\n", err)
		return 1
	}
	defer docker.Close()
	dir, err := os.MkdirTemp("", "orch-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer func() {
		if err := docker.sweepImages(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "remove the tests' images:", err)
		}
	}()
	if err := prepare(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the tests:", err)
		return 1
	}
	return m.Run()
}

// prepare builds the program and the images.
func prepare(ctx context.Context, dir string) error {
	if err := docker.sweepImages(ctx); err != nil {
		return err
	}
	orchProgram = filepath.Join(dir, "orch")
	probeProgram := filepath.Join(dir, "probe")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return build(ctx, "github.com/orch-dev/orch/cmd/orch", orchProgram) })
	group.Go(func() error {
		if err := build(ctx, "./probe", probeProgram); err != nil {
			return err
		}
		for _, version := range []string{"v1", "v2"} {
			if err := docker.importProbe(ctx, probeProgram, version); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error { return buildExample(ctx) })
	return group.Wait()
}

func TestTC(t *testing.T)  { endToEnd(t, lab.DatapathTC) }
func TestXDP(t *testing.T) { endToEnd(t, lab.DatapathXDP) }

// endToEnd goes through the life of a cluster, from what harms nothing to what
// does. Each step leaves the cluster as it found it, and brings the stacks that
// it needs, so that one can be run alone.
func endToEnd(t *testing.T, datapath lab.Datapath) {
	c := newCluster(t, docker, orchProgram, lab.Options{Datapath: datapath})
	steps := []struct {
		name   string
		stacks []string
		run    func(*testing.T, *cluster)
	}{
		{"bad input is refused", nil, testBadInput},
		{"deploy", nil, testDeploy},
		{"deploy again", []string{blog}, testDeployAgain},
		{"published port", []string{blog}, testPublishedPort},
		{"logs", []string{blog}, testLogs},
		{"conflicts", []string{blog}, testConflicts},
		{"names", []string{probe, other}, testNames},
		{"task to task", []string{probe}, testTaskToTask},
		{"isolation", []string{probe, other}, testIsolation},
		{"outside", []string{probe}, testOutside},
		{"UDP", []string{probe}, testUDP},
		{"large transfers", []string{probe}, testTransfers},
		{"metrics", []string{blog, probe}, testMetrics},
		{"explain", []string{blog}, testExplain},
		{"doctor", nil, testDoctor},
		{"scale", []string{blog}, testScale},
		{"placement", nil, testPlacement},
		{"rolling update", []string{probe}, testUpdate},
		{"volume", []string{probe}, testVolume},
		{"killed container", []string{blog}, testKilledContainer},
		{"killed daemon", []string{blog, probe}, testKilledDaemon},
		{"cut wire", []string{blog, probe}, testCutWire},
		{"killed node", []string{blog, probe}, testKilledNode},
		{"killed leader", []string{blog, probe}, testKilledLeader},
		{"remove", []string{blog, probe, other}, testRemove},
	}
	deployed := map[string]bool{}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			for _, stack := range step.stacks {
				if !deployed[stack] {
					c.deploy(t, stack, "v1")
					deployed[stack] = true
				}
			}
			c.settle(t)
			start := time.Now()
			step.run(t, c)
			t.Logf("took %.1f s", time.Since(start).Seconds())
		})
	}
}
