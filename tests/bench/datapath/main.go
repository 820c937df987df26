// Command datapath measures the data plane by itself: what the ingress program
// costs per packet, how many it passes on, and how long user space takes to put
// frontends into the kernel. Each figure is printed with what it must reach and
// what it is compared with. It needs root and leaves nothing behind: devices and
// pins are in namespaces of its own. docs/benchmarks.md says how to read it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"

	"github.com/orch-dev/orch/tests/bench/figures"
)

// options are the command's flags.
type options struct {
	rounds            int
	packets           int
	frontends, fanout int // of the full sync
	many, few         int // frontends that a first packet is measured with
	only              *regexp.Regexp
}

// part is one thing that is measured.
type part struct {
	name    string
	measure func(io.Writer, options) error
}

var parts = []part{{"ingress", ingress}, {"first", firstPacket}, {"sync", sync}, {"maglev", maglev}, {"memory", memory}}

func main() {
	opt := options{only: regexp.MustCompile("")}
	flag.IntVar(&opt.rounds, "rounds", 7, "interleaved rounds")
	flag.IntVar(&opt.packets, "packets", 500_000, "packets of one measurement")
	flag.IntVar(&opt.frontends, "frontends", 10_000, "frontends of the full sync")
	flag.IntVar(&opt.fanout, "backends", 10, "backends of each")
	flag.IntVar(&opt.many, "many", 30_000, "frontends that the first packet of a flow is measured with ...")
	flag.IntVar(&opt.few, "few", 10, "... and those that it is compared with")
	flag.Func("only", "measure only the parts matching this `regexp`: ingress, first, sync, maglev, memory", func(s string) (err error) {
		opt.only, err = regexp.Compile(s)
		return err
	})
	flag.Parse()
	// The thread has namespaces of its own, and ends with the process.
	runtime.LockOSThread()
	if err := run(os.Stdout, opt); err != nil {
		fmt.Fprintln(os.Stderr, "datapath:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, opt options) error {
	machine, err := figures.ThisMachine()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "data path:", machine)
	if err := enterNamespaces(); err != nil {
		return err
	}
	for _, p := range parts {
		if !opt.only.MatchString(p.name) {
			continue
		}
		if err := p.measure(out, opt); err != nil {
			return err
		}
	}
	return nil
}
