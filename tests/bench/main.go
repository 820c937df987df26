// Command bench measures what a request costs on its way from a client through
// a node to a workload on another node, and from workload to workload: over
// plain routing, with what people use today, and with orch.
//
// All contenders run interleaved in one run, each on its own copy of the same
// fabric of network namespaces. The figure is CPU time of the whole machine per
// request, because it hardly moves when the machine is shared and requests per
// second do. docs/benchmarks.md says how to read the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/orch-dev/orch/tests/bench/figures"
)

// options are the command's flags.
type options struct {
	rounds      int
	seconds     int
	connections int
	streamBytes int64
	only        *regexp.Regexp
	jsonFile    string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == nodeCommand {
		exit(runNode(os.Args[2], os.Stdin, os.Stdout))
	}
	opt, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, opt)
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func parseFlags(args []string) (options, error) {
	opt := options{only: regexp.MustCompile("")}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.IntVar(&opt.rounds, "rounds", 4, "interleaved rounds")
	fs.IntVar(&opt.seconds, "seconds", 1, "seconds of requests per measurement")
	fs.IntVar(&opt.connections, "connections", 32, "connections of the client")
	fs.Int64Var(&opt.streamBytes, "bytes", 2e9, "bytes of one TCP stream")
	fs.StringVar(&opt.jsonFile, "json", "", "write every sample to this `file` too")
	fs.Func("only", "measure only paths matching this `regexp`, and the plain ones they are compared with", func(s string) (err error) {
		opt.only, err = regexp.Compile(s)
		return err
	})
	if err := fs.Parse(args); err != nil {
		return opt, err
	}
	if fs.NArg() > 0 || opt.rounds < 1 || opt.seconds < 1 || opt.connections < 1 || opt.streamBytes < 1 {
		fmt.Fprintln(fs.Output(), "bench: takes only flags, and every number must be positive")
		fs.Usage()
		return opt, errors.New("usage")
	}
	return opt, nil
}

// run builds the fabrics, measures, prints, and takes everything down again,
// also when ctx is cancelled.
func run(ctx context.Context, opt options) (err error) {
	if err := checkMachine(); err != nil {
		return err
	}
	if err := removeAbandoned(); err != nil {
		return err
	}
	machine, err := figures.ThisMachine()
	if err != nil {
		return err
	}
	tables := selectPaths(allTables(), opt.only)

	fabrics := &fabricSet{byNetwork: map[string]*fabric{}}
	defer func() { err = errors.Join(err, fabrics.close()) }()
	fmt.Fprintln(os.Stderr, "building the fabrics")
	for _, t := range tables {
		for _, p := range t.paths {
			if err := fabrics.prepare(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}

	result := newResult(machine, opt, tables)
	for round := range opt.rounds {
		for ti, t := range tables {
			for mi, m := range t.measures {
				for pi, p := range t.paths {
					s, err := m.take(ctx, fabrics.byNetwork[p.network.name], p, opt)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", p.name, m.name, err)
					}
					result.add(ti, pi, mi, s)
					fmt.Fprintf(os.Stderr, "round %d/%d  %s, %s: %s\n", round+1, opt.rounds, p.name, m.name, s.describe(m))
				}
			}
		}
	}
	result.finish()
	if err := result.print(os.Stdout); err != nil {
		return err
	}
	if opt.jsonFile != "" {
		return result.writeJSON(opt.jsonFile)
	}
	return nil
}

// checkMachine says in one sentence what has to be installed.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it as root")
	}
	packages := map[string]string{
		"ip": "iproute2", "bridge": "iproute2", "iptables": "iptables", "haproxy": "haproxy",
		"nginx": "nginx-light", "wrk": "wrk", "iperf3": "iperf3",
	}
	var missing []string
	for _, program := range []string{"ip", "bridge", "iptables", "haproxy", "nginx", "wrk", "iperf3"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Sprintf("%s (package %s)", program, packages[program]))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("install what the comparison runs on: %s", strings.Join(missing, ", "))
	}
	return nil
}

// readyLimit is how long a part of the fabric may take to answer.
const readyLimit = 15 * time.Second
