// The program of the test image: its first argument says what to do.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"serve"}
	}
	switch args[0] {
	case "serve": // until SIGTERM or SIGINT, which it names
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("ready")
		fmt.Println("got", <-ch)
	case "stubborn": // until SIGKILL
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "exit":
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	case "say": // alternate lines on stdout and stderr
		n, _ := strconv.Atoi(args[1])
		for i := range n {
			fmt.Fprintln(os.Stdout, "out", i)
			fmt.Fprintln(os.Stderr, "err", i)
		}
	case "exists": // a probe
		if _, err := os.Stat(args[1]); err != nil {
			fmt.Println("not there yet")
			os.Exit(1)
		}
		fmt.Println("there")
	case "touch":
		check(os.WriteFile(args[1], nil, 0o644))
	case "append":
		f, err := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		check(err)
		fmt.Fprintln(f, args[2])
		b, err := os.ReadFile(args[1])
		check(err)
		fmt.Print(string(b))
	case "eat":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
		}
	case "report":
		report()
	case "read": // files, with who may read them, and whether they can be changed
		for _, path := range args[1:] {
			b, err := os.ReadFile(path)
			check(err)
			info, err := os.Stat(path)
			check(err)
			owner := info.Sys().(*syscall.Stat_t)
			_, err = os.OpenFile(path, os.O_WRONLY, 0)
			fmt.Printf("%s %q %d:%d %o, %v\n", path, b, owner.Uid, owner.Gid, info.Mode().Perm(), err)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func report() {
	r := map[string]string{
		"args": strings.Join(os.Args[1:], " "),
		"uid":  fmt.Sprint(os.Getuid()),
		"ppid": fmt.Sprint(os.Getppid()),
		"env":  os.Getenv("GREETING"),
	}
	r["hostname"], _ = os.Hostname()
	r["cwd"], _ = os.Getwd()
	for _, f := range []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"} {
		b, _ := os.ReadFile(f)
		r[f] = strings.TrimSpace(string(b))
	}
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		r["interfaces"] += i.Name + " "
	}
	err := os.WriteFile("/written", nil, 0o644)
	r["rootfs"] = fmt.Sprint(err)
	r["tmpfs"] = fmt.Sprint(os.WriteFile("/scratch/written", nil, 0o644))
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			r["caps"] = strings.TrimSpace(v)
		}
	}
	// Version 1 and version 2 of cgroups.
	r["memory"] = first("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
	r["cpu"] = first("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max")
	r["pids"] = first("/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max")
	check(json.NewEncoder(os.Stdout).Encode(r))
}

func first(paths ...string) string {
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return "?"
}
