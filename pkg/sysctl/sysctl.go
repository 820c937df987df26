// Package sysctl changes settings of the kernel and notes what they were, so that
// they can be put back. The note is a file that lives as long as the kernel's
// settings do: in a directory that a reboot empties.
//
// Settings of a network namespace are those of the calling thread's.
package sysctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const root = "/proc/sys"

// Also are the settings, as patterns, that the kernel changes along with one of
// all devices (ip-sysctl.rst: ip_forward resets all configuration parameters to
// their defaults for routers; conf/all/forwarding is for all interfaces).
var also = map[string][]string{
	"net/ipv4/ip_forward":          {"net/ipv4/conf/*/forwarding", "net/ipv4/conf/all/accept_redirects"},
	"net/ipv6/conf/all/forwarding": {"net/ipv6/conf/*/forwarding"},
}

// Journal changes settings and can undo all of it, also after the process that
// made the changes has ended.
type Journal struct {
	path string
	mu   sync.Mutex
}

// note is a setting as it was found, and as it was set.
type note struct {
	Key string `json:"key"`           // below /proc/sys, with slashes: device names may have dots
	Was string `json:"was"`           // of reserved ports: those of others
	Set string `json:"set,omitempty"` // "" of one that the kernel changed along with another
}

// New returns the journal that is kept in the file at path.
func New(path string) *Journal { return &Journal{path: path} }

// Set gives a setting a value. What it was is on disk before that. One that has
// the value already is let be, and not put back either.
func (j *Journal) Set(key, value string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, err := read(key)
	if err != nil {
		return fmt.Errorf("read sysctl %s: %w", key, err)
	}
	if now == value {
		return nil
	}
	notes, err := j.read()
	if err != nil {
		return err
	}
	for _, pattern := range also[key] {
		for _, other := range match(pattern) {
			if was, err := read(other); err == nil && find(notes, other) < 0 {
				notes = append(notes, note{Key: other, Was: was})
			}
		}
	}
	if i := find(notes, key); i >= 0 {
		notes[i].Set = value
	} else {
		notes = append(notes, note{Key: key, Was: now, Set: value})
	}
	if err := j.write(notes); err != nil {
		return err
	}
	return write(key, value)
}

// Restore puts back what was changed, the last change first, but nothing that
// somebody else has set since; what belonged to a device that is gone is passed
// over. It forgets all, so that a second time does nothing.
func (j *Journal) Restore() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	notes, err := j.read()
	if err != nil {
		return err
	}
	var errs []error
	slices.Reverse(notes)
	for _, n := range notes {
		if err := n.restore(); err != nil {
			errs = append(errs, fmt.Errorf("restore sysctl %s: %w", n.Key, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget changed sysctls: %w", err)
	}
	return nil
}

func (n note) restore() error {
	if n.Key == reservedPorts {
		return n.restorePorts()
	}
	now, err := read(n.Key)
	if errors.Is(err, os.ErrNotExist) || err == nil && (now == n.Was || n.Set != "" && now != n.Set) {
		return nil
	}
	if err != nil {
		return err
	}
	return write(n.Key, n.Was)
}

func find(notes []note, key string) int {
	return slices.IndexFunc(notes, func(n note) bool { return n.Key == key })
}

func (j *Journal) read() ([]note, error) {
	text, err := os.ReadFile(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read changed sysctls: %w", err)
	}
	var notes []note
	if err := json.Unmarshal(text, &notes); err != nil {
		return nil, fmt.Errorf("read changed sysctls from %s: %w (remove the file to leave the settings as they are)", j.path, err)
	}
	return notes, nil
}

func (j *Journal) write(notes []note) error {
	text, err := json.Marshal(notes)
	if err != nil {
		return fmt.Errorf("note changed sysctls: %w", err)
	}
	fresh := j.path + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return fmt.Errorf("note changed sysctls: %w", err)
	}
	if err := os.Rename(fresh, j.path); err != nil {
		return fmt.Errorf("note changed sysctls: %w", err)
	}
	return nil
}

// match gives the keys that a pattern stands for.
func match(pattern string) []string {
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		return nil // only of a pattern that cannot be
	}
	for i, path := range paths {
		paths[i] = strings.TrimPrefix(path, root+"/")
	}
	return paths
}

// read returns a setting. Of a list the kernel gives what fits the first read, and
// says that this is all: so one that fills the room is read again, with more of it.
func read(key string) (string, error) {
	f, err := os.Open(filepath.Join(root, key))
	if err != nil {
		return "", err
	}
	defer f.Close()
	for size := 4096; ; size *= 2 {
		value := make([]byte, size)
		n, err := f.ReadAt(value, 0)
		if errors.Is(err, io.EOF) {
			return strings.TrimSpace(string(value[:n])), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// write sets a setting. The line's end makes one of an empty value, which the kernel
// passes over otherwise. It takes less than a page of a list at once, and adds what is
// written behind that.
func write(key, value string) error {
	if err := os.WriteFile(filepath.Join(root, key), []byte(value+"\n"), 0); err != nil {
		if len(value) > maxTold {
			value = value[:maxTold] + "..."
		}
		return fmt.Errorf("set sysctl %s to %s: %w", key, value, err)
	}
	return nil
}

// maxTold is how much an error tells of a value, in bytes.
const maxTold = 200
