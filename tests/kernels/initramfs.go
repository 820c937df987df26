package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// guestPrograms are this machine's programs that the tests run.
var guestPrograms = []string{"ip", "tc", "ethtool"}

// guest is what all machines have in common: files by their path.
type guest map[string]string

// buildGuest compiles the first process of the machines and the tests it runs,
// and finds the programs that the tests need, with their libraries.
func buildGuest(ctx context.Context, work string) (guest, error) {
	g := guest{"init": filepath.Join(work, "init"), "dataplane.test": filepath.Join(work, "dataplane.test")}
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", g["init"], "./tests/kernels/guest"},
		{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", g["dataplane.test"], "./pkg/dataplane"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if _, err := output(cmd); err != nil {
			return nil, err
		}
	}
	for _, name := range guestPrograms {
		file, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w; packaging/deps.sh kernels installs it", err)
		}
		g["bin/"+name] = file
		libraries, err := output(exec.CommandContext(ctx, "ldd", file))
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(libraries) {
			if strings.HasPrefix(field, "/") {
				g[strings.TrimPrefix(field, "/")] = field
			}
		}
	}
	return g, nil
}

// writeInitramfs writes the file system that a kernel's machine starts with.
func writeInitramfs(ctx context.Context, file string, g guest, k kernel, tests string) (err error) {
	modules, err := loadModules(k.modules, wantedModules)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriter(f)
	w := &cpio{w: out, dirs: make(map[string]bool)}
	for name, source := range g {
		content, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		w.file(name, content)
	}
	w.file("tests", []byte(tests))
	for i, m := range modules {
		w.file(fmt.Sprintf("modules/%03d-%s.ko", i, m.name), m.content)
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var"} {
		w.dir(dir)
	}
	w.entry("var/run", 0o120777, []byte("/run"))
	w.entry("TRAILER!!!", 0, nil)
	return errors.Join(w.err, out.Flush(), ctx.Err())
}

// cpio writes the archive format of an initramfs ("newc"; the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	w    io.Writer
	dirs map[string]bool
	last int // inode number
	err  error
}

func (c *cpio) file(name string, content []byte) {
	c.dir(path.Dir(name))
	c.entry(name, 0o100755, content)
}

// dir makes a directory and those above it, once.
func (c *cpio) dir(name string) {
	if name == "." || c.dirs[name] {
		return
	}
	c.dir(path.Dir(name))
	c.dirs[name] = true
	c.entry(name, 0o040755, nil)
}

func (c *cpio) entry(name string, mode int, content []byte) {
	c.last++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.last, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	c.write(header + name + "\x00")
	c.pad(len(header) + len(name) + 1)
	c.write(string(content))
	c.pad(len(content))
}

// pad fills up to a multiple of four bytes.
func (c *cpio) pad(written int) { c.write("\x00\x00\x00"[:(4-written%4)%4]) }

func (c *cpio) write(s string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.w, s)
	}
}
