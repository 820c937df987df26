package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// result is what a machine said.
type result struct {
	kernel   kernel
	accel    string // of qemu
	features []string
	have     map[string]bool     // of the features
	tests    []string            // in their order
	outcomes map[string]string   // PASS, FAIL or SKIP
	said     map[string][]string // lines of the tests
	started  bool                // the first process
	finished bool                // all tests
	last     []string            // lines, for when it did not finish
}

// kvmBoot is how long a kernel may take to its first process with KVM.
const kvmBoot = 10 * time.Second

// behindOthers is the nice value of the machines: what else is at work goes first.
const behindOthers = 10

// boot runs a machine until it switches itself off: with KVM where that is
// there and this kernel starts with it, else with emulated instructions.
func boot(ctx context.Context, opt options, k kernel, initramfs string) result {
	ctx, cancel := context.WithTimeout(ctx, opt.limit)
	defer cancel()
	if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		kvm.Close()
		r := newResult(k, "kvm")
		if r.run(ctx, opt, initramfs, "host", kvmBoot); r.started {
			return *r
		}
	}
	r := newResult(k, "tcg")
	r.run(ctx, opt, initramfs, "max", opt.limit)
	return *r
}

func newResult(k kernel, accel string) *result {
	return &result{kernel: k, accel: accel, have: make(map[string]bool), outcomes: make(map[string]string), said: make(map[string][]string)}
}

// run runs a machine. It is ended if its first process does not start in time.
func (r *result) run(ctx context.Context, opt options, initramfs, cpu string, start time.Duration) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// One CPU: with two, emulated ones of qemu 7.2 have crashed kernels. And no
	// check of the timer, which a machine that is given too little time fails.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot",
		"-accel", r.accel, "-cpu", cpu, "-smp", "1", "-m", "1536",
		"-serial", "stdio", "-kernel", r.kernel.image, "-initrd", initramfs,
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.last = []string{err.Error()}
		return
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, behindOthers); err != nil {
		r.last = append(r.last, fmt.Sprintf("lower its priority: %v", err)) // it has ended already
	}
	late := time.AfterFunc(start, func() { cancel(errors.New("its first process did not start")) })
	r.read(out, opt.verbose, func() { late.Stop() })
	late.Stop()
	if err := cmd.Wait(); err != nil {
		r.last = append(r.last, strings.TrimSpace(fmt.Sprintf("%v: %v %s", context.Cause(ctx), err, &complaints)))
	}
}

var (
	testLine = regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\S+)`)
	testName = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +(\S+)`) // whose lines follow
)

// read takes in what the machine prints.
func (r *result) read(out io.Reader, verbose bool, started func()) {
	const keep, keepOfTest = 60, 20 // lines
	current := ""
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		line := strings.TrimRight(scanner.Text(), "\r")
		if verbose {
			fmt.Fprintf(os.Stderr, "%s| %s\n", r.kernel.release, line)
		}
		r.last = append(r.last, line)
		if len(r.last) > keep {
			r.last = slices.Delete(r.last, 0, len(r.last)-keep)
		}
		if m := testLine.FindStringSubmatch(line); m != nil {
			r.outcomes[m[2]] = m[1]
			r.tests = append(r.tests, m[2])
		} else if m := testName.FindStringSubmatch(line); m != nil {
			current = m[1]
		}
		said, ok := strings.CutPrefix(line, "guest: ")
		if !ok {
			if !testLine.MatchString(line) && !strings.HasPrefix(line, "=== ") {
				lines := append(r.said[current], line)
				r.said[current] = lines[max(0, len(lines)-keepOfTest):]
			}
			continue
		}
		if !r.started {
			r.started = true
			started()
		}
		if said == "finished" {
			r.finished = true
		} else if feature, ok := strings.CutPrefix(said, "feature "); ok {
			have, name, _ := strings.Cut(feature, " ")
			r.features = append(r.features, name)
			r.have[name] = have == "true"
		}
	}
}

// summary counts the tests.
func (r *result) summary() string {
	count := make(map[string]int)
	for _, outcome := range r.outcomes {
		count[outcome]++
	}
	s := fmt.Sprintf("%s: %d passed, %d failed, %d skipped", r.accel, count["PASS"], count["FAIL"], count["SKIP"])
	if !r.finished {
		s += ", did not finish"
	}
	return s
}
