package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	defer func() {
		if err := sweep(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "remove what the tests made:", err)
		}
	}()
	if err := prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the tests:", err)
		return 1
	}
	return m.Run()
}

// sweep removes all that this process made, and what others made that were
// killed before they could.
func sweep(ctx context.Context) error {
	labs, err := lab.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range labs {
		if ours := strings.HasPrefix(name, "e2e-"); ours && over(lastWord(name)) {
			if err := lab.Down(ctx, name); err != nil {
				return err
			}
		}
	}
	dirs, err := filepath.Glob(workDir("*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if over(lastWord(dir)) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return docker.sweep(ctx)
}

// workDir is where the process of that number builds its programs.
func workDir(pid string) string { return filepath.Join(os.TempDir(), "orch-e2e-"+pid) }

// prepare builds the program and the images.
func prepare(ctx context.Context) error {
	if err := sweep(ctx); err != nil {
		return fmt.Errorf("remove what killed runs left: %w", err)
	}
	dir := workDir(strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
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
		for _, version := range []string{"v1", "v2", "sick"} {
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

// once is a step for which it makes no difference how the programs are attached.
func once(step func(*testing.T, *cluster)) func(*testing.T, *cluster) {
	return func(t *testing.T, c *cluster) {
		if c.Options().Datapath != lab.DatapathTC {
			t.Skip("how the programs are attached makes no difference: TestTC has it")
		}
		step(t, c)
	}
}

// endToEnd goes through the life of a cluster, from what harms nothing to what
// does. Each step leaves the cluster as it found it, and brings the stacks that
// it needs, so that one can be run alone.
func endToEnd(t *testing.T, datapath lab.Datapath) {
	c := newCluster(t, lab.Options{Datapath: datapath})
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
		{"names", []string{probes, other}, testNames},
		{"task to task", []string{probes}, testTaskToTask},
		{"isolation", []string{probes, other}, testIsolation},
		{"outside", []string{probes}, testOutside},
		{"UDP", []string{probes}, testUDP},
		{"IPv6", []string{probes, other}, testIPv6},
		{"large transfers", []string{probes}, testTransfers},
		{"metrics", []string{blog, probes}, testMetrics},
		{"explain", []string{blog}, testExplain},
		{"doctor", nil, testDoctor},
		{"direct return", nil, testDirectReturn},
		{"secrets", []string{blog}, testSecrets},
		{"secrets and configs", nil, once(testFiles)},
		{"another machine", []string{blog}, once(testContext)},
		{"authority replaced", []string{blog, probes}, once(testRotation)},
		{"settings", []string{blog}, once(testSettings)},
		{"scale", []string{blog}, testScale},
		{"placement", nil, once(testPlacement)},
		{"ports of nodes", nil, testHostPort},
		{"rolling update", []string{probes}, testUpdate},
		{"volume", []string{probes}, testVolume},
		{"killed container", []string{blog}, testKilledContainer},
		{"killed daemon", []string{blog, probes}, testKilledDaemon},
		{"cut wire", []string{blog, probes}, testCutWire},
		{"killed node", []string{blog, probes}, testKilledNode},
		{"killed leader", []string{blog, probes}, testKilledLeader},
		{"roles", []string{probes}, once(testRoles)},
		{"leave", []string{probes}, once(testLeave)},
		// From here on certificates are signed by one who is gone with that step.
		{"authority outside", []string{blog}, once(testAuthorityOutside)},
		{"remove", []string{blog, probes, other}, testRemove},
	}
	deployed := map[string]bool{}
	for _, step := range steps {
		unsettled := false
		t.Run(step.name, func(t *testing.T) {
			unsettled = true
			for _, stack := range step.stacks {
				if !deployed[stack] {
					c.deploy(t, stack, "v1")
					deployed[stack] = true
				}
			}
			c.settle(t)
			unsettled = false
			start := time.Now()
			step.run(t, c)
			t.Logf("took %.1f s", time.Since(start).Seconds())
		})
		if unsettled {
			t.Fatalf("the cluster is not as it should be before %q: the rest would tell nothing", step.name)
		}
	}
}
