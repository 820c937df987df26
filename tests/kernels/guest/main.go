// Command guest is the first process of a machine of tests/kernels: it loads
// the modules, says what the kernel has, runs the tests of the data plane, and
// switches the machine off. Lines that begin with "guest:" are for the host.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/dataplane"
	"github.com/orch-dev/orch/pkg/wireguard"
)

// testsFailed is the exit code of tests of which some failed; others are a crash.
const testsFailed = 1

func main() {
	if err := run(); err != nil {
		fmt.Println("guest: failed", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the kernel panics when its first process ends
}

func run() error {
	if len(os.Args) == 1 {
		if err := mount(); err != nil {
			return err
		}
		// Libraries look for some of it before main begins.
		return unix.Exec(os.Args[0], []string{os.Args[0], "mounted"}, os.Environ())
	}
	fmt.Println("guest: started")
	if err := loadModules(); err != nil {
		return err
	}
	for _, f := range dataplane.Features() {
		fmt.Printf("guest: feature %t %s\n", f.Have, f.Name)
	}
	fmt.Printf("guest: feature %t WireGuard\n", wireguard.Lacks() == "")
	pattern, err := os.ReadFile("/tests")
	if err != nil {
		return err
	}
	// A flood leaves an emulated processor no time for anything beside.
	cmd := exec.Command("/dataplane.test", "-test.v", "-test.short", "-test.timeout=0",
		"-test.skip=^TestDataplane$/.*/^flood$", "-test.run="+string(pattern))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.Env = []string{"PATH=/bin", "LD_LIBRARY_PATH=/lib/x86_64-linux-gnu", "HOME=/"}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != testsFailed) {
		return err
	}
	fmt.Println("guest: finished")
	return nil
}

func mount() error {
	for _, m := range []struct{ kind, target string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}, {"bpf", "/sys/fs/bpf"},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// loadModules loads them in the order of their names.
func loadModules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := unix.InitModule(content, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}
