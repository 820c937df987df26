// Command kernels boots real distribution kernels in virtual machines, runs the
// tests of the data plane in each, and prints what works on which. It fails
// when a result is not the one that is documented.
//
// The kernels are Debian's, of several releases, from the mirror in the
// machine's own apt configuration. They are downloaded once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// options are the command's flags.
type options struct {
	suites  []string
	tests   string
	cache   string
	beside  int
	limit   time.Duration
	refresh bool
	verbose bool
}

func main() {
	opt, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	var opt options
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	suites := flags.String("suites", "bullseye,bookworm,trixie,sid", "Debian `releases` whose kernels are booted")
	flags.StringVar(&opt.tests, "tests", defaultTests, "`pattern` of the tests of pkg/dataplane, as for go test -run")
	short := flags.Bool("short", false, "only some of the tests, with the programs attached in one way")
	flags.StringVar(&opt.cache, "cache", "", "`directory` for what is downloaded (default: orch/kernels in the user's cache directory)")
	flags.IntVar(&opt.beside, "j", runtime.NumCPU(), "`machines` at a time")
	flags.DurationVar(&opt.limit, "limit", 20*time.Minute, "time for one machine")
	flags.BoolVar(&opt.refresh, "refresh", false, "look for newer kernels than those that are there")
	flags.BoolVar(&opt.verbose, "v", false, "print what the machines print")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	opt.suites = strings.Split(*suites, ",")
	if *short {
		opt.tests = shortTests
	}
	if opt.cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return opt, err
		}
		opt.cache = filepath.Join(base, "orch", "kernels")
	}
	return opt, nil
}

func run(ctx context.Context, opt options) error {
	work, err := os.MkdirTemp("", "orch-kernels-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	start := time.Now()
	kernels, err := fetchKernels(ctx, opt)
	if err != nil {
		return err
	}
	guest, err := buildGuest(ctx, work)
	if err != nil {
		return err
	}
	results := make([]result, len(kernels))
	var group errgroup.Group
	group.SetLimit(opt.beside)
	for i, k := range kernels {
		group.Go(func() error {
			image := filepath.Join(work, k.release+".cpio")
			if err := writeInitramfs(ctx, image, guest, k, opt.tests); err != nil {
				return fmt.Errorf("initramfs of %s: %w", k.release, err)
			}
			began := time.Now()
			results[i] = boot(ctx, opt, k, image)
			fmt.Fprintf(os.Stderr, "%s (%s): %s in %.0f s\n", k.release, k.suite, results[i].summary(), time.Since(began).Seconds())
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Print(table(results))
	fmt.Fprintf(os.Stderr, "%d kernels in %.0f s\n", len(results), time.Since(start).Seconds())
	return unexpected(results)
}
