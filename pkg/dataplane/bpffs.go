package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The pins of a data plane: PinDir/maps has the state maps, PinDir/links the
// attachments.
const (
	mapsDir  = "maps"
	linksDir = "links"

	systemMount = "/sys/fs/bpf"
)

// prepare makes the pin directories, in a BPF file system, and takes the lock
// that keeps a second daemon out until the returned file is closed.
func prepare(pinDir string) (*os.File, error) {
	if err := mountAbove(pinDir); err != nil {
		return nil, err
	}
	for _, dir := range []string{mapsDir, linksDir} {
		if err := os.MkdirAll(filepath.Join(pinDir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("make pin directory: %w", err)
		}
	}
	lock, err := os.Open(pinDir)
	if err != nil {
		return nil, fmt.Errorf("open pin directory: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another process runs the data plane there; stop it first")
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", pinDir, err)
	}
	return lock, nil
}

// mountAbove mounts a BPF file system if dir is in none yet.
func mountAbove(dir string) error {
	existing := dir
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(existing, &fs)
		if err == nil && fs.Type == unix.BPF_FS_MAGIC {
			return nil
		}
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || existing == "/" {
			return fmt.Errorf("find the file system of %s: %w", dir, err)
		}
		existing = filepath.Dir(existing)
	}
	target := dir
	if dir == systemMount || strings.HasPrefix(dir, systemMount+"/") {
		target = systemMount
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	if err := unix.Mount("bpf", target, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system at %s: %w", target, err)
	}
	return nil
}

// unmountOwn unmounts the file system that mountAbove put at dir itself.
func unmountOwn(dir string) error {
	var own, above unix.Stat_t
	if dir == systemMount || unix.Stat(dir, &own) != nil || unix.Stat(filepath.Dir(dir), &above) != nil || own.Dev == above.Dev {
		return nil
	}
	for _, sub := range []string{linksDir, mapsDir} {
		if err := os.Remove(filepath.Join(dir, sub)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := unix.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// names lists a directory; one that is missing has none.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Name()
	}
	return list, nil
}
