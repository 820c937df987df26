package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// othersCPU is the CPU time that processes other than this run's have used so
// far, their ended children included; kernel threads are left out, because
// they work on the run's packets too. It says how far a sample can be trusted
// and is not subtracted from one: a packet of ours may be handled on their time.
func othersCPU() (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	own := os.Getpid()
	var sum time.Duration
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // has ended; its time is now its parent's
		}
		p, err := parseProcess(string(content))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if p.pid != own && p.parent != own && p.parent != kthreadd {
			sum += p.used
		}
	}
	return sum, nil
}

// kthreadd is the process ID of every kernel thread's parent.
const kthreadd = 2

type process struct {
	pid, parent int
	used        time.Duration // by it and by its ended children
}

// parseProcess reads /proc/PID/stat (proc_pid_stat(5)).
func parseProcess(stat string) (process, error) {
	// The second field is a name in parentheses that may hold anything.
	head, _, _ := strings.Cut(stat, " ")
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return process{}, fmt.Errorf("unexpected process status %q", stat)
	}
	fields := append([]string{head, ""}, strings.Fields(stat[end+1:])...)
	if len(fields) < 17 {
		return process{}, fmt.Errorf("unexpected process status %q", stat)
	}
	number := func(field int) (n int) { // fields are numbered from 1
		n, _ = strconv.Atoi(fields[field-1])
		return n
	}
	ticks := number(14) + number(15) + number(16) + number(17) // utime stime cutime cstime
	return process{pid: number(1), parent: number(4), used: time.Duration(ticks) * (time.Second / 100)}, nil
}
