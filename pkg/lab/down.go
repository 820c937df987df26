package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Down removes the lab.
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.options.Name) }

// Down removes everything that was made for the lab of that name, whatever
// state it is in, and nothing else. No lab at all is no error.
func Down(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	unlock, err := lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := remove(ctx, name); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	return nil
}

// Names returns the labs of which there is any trace, in order.
func Names(ctx context.Context) ([]string, error) {
	var names []string
	for _, root := range []string{stateRoot, runRoot, pinRoot} {
		entries, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list labs: %w", err)
		}
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
	}
	for _, path := range namespaces("*") {
		names = append(names, labOf(filepath.Base(path)))
	}
	docker, err := openEngine()
	if err != nil {
		return nil, err
	}
	defer docker.close()
	if labelled, err := docker.labs(ctx); err == nil {
		names = append(names, labelled...)
	} else if len(names) > 0 {
		return nil, err
	} // without an engine and any other trace there is no lab
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool { return checkName(name) != nil }), nil
}

var namespacePattern = regexp.MustCompile(`^orch-(.+)-(?:` + switchName + `|` + ClientName + `|n[0-9]+)$`)

// labOf returns the lab that a namespace is of by its name, or "".
func labOf(namespace string) string {
	if match := namespacePattern.FindStringSubmatch(namespace); match != nil {
		return match[1]
	}
	return ""
}

// namespaces returns the paths of the namespaces of a lab, or of all with "*".
func namespaces(lab string) []string {
	paths, err := filepath.Glob(filepath.Join(netnsRoot, "orch-"+lab+"-*"))
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(paths, func(path string) bool {
		of := labOf(filepath.Base(path))
		return of == "" || lab != "*" && of != lab
	})
}

// remove goes from the parts that make others to those they make: processes,
// containers, pins, namespaces, files. It does all it can in spite of errors.
func remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()

	traces := trace(name)
	var errs []error
	for _, p := range processesOf(name) {
		traces = true
		errs = append(errs, p.kill(ctx))
		p.close()
	}
	docker, err := openEngine()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer docker.close()
	containersErr := docker.remove(ctx, name)

	errs = append(errs, removeTree(filepath.Join(pinRoot, name)))
	if path := filepath.Join(netnsRoot, namespaceName(name, switchName)); isNamespace(path) {
		errs = append(errs, unplug(path))
	}
	for _, path := range namespaces(name) {
		errs = append(errs, removeNamespace(path))
	}
	errs = append(errs, removeTree(filepath.Join(runRoot, name)), removeTree(filepath.Join(stateRoot, name)))

	if containersErr == nil && traces {
		// Once more, for what the engine was still making at the first time.
		containersErr = docker.remove(ctx, name)
	}
	if containersErr != nil && traces {
		errs = append(errs, containersErr)
	}
	return errors.Join(errs...)
}

// trace reports whether there is any file or namespace of a lab.
func trace(name string) bool {
	for _, root := range []string{stateRoot, runRoot, pinRoot} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			return true
		}
	}
	return len(namespaces(name)) > 0
}

// removeTree removes a directory, what is mounted in it, and its parent if that
// is empty then.
func removeTree(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var inside []string
	for line := range strings.Lines(string(mounts)) {
		// Field 5 is where it is mounted (proc_pid_mountinfo(5)); our names
		// need none of its escapes.
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			inside = append(inside, fields[4])
		}
	}
	slices.Reverse(inside) // later mounts may lie in earlier ones
	for _, path := range inside {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	if parent := filepath.Dir(dir); isRoot(parent) {
		os.Remove(parent) // fails while another lab is in it, as it should
	}
	return nil
}

func isRoot(dir string) bool { return dir == stateRoot || dir == runRoot || dir == pinRoot }
