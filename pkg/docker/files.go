package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// A task's secrets and configs lie in a tmpfs of its own under its directory, one
// file for each, named by its place in the spec, and are bound into the container
// read-only. So they are in memory only, and gone with the mount.

func (c *Config) filesDir(id api.TaskID) string { return filepath.Join(c.taskDir(id), "files") }

func (c *Config) filePath(id api.TaskID, n int) string {
	return filepath.Join(c.filesDir(id), strconv.Itoa(n))
}

// PlaceFiles makes the files of a task that does not run, before it is started;
// contents are those of Spec.Files, in their order.
func (e *Engine) PlaceFiles(t *api.Task, contents [][]byte) error {
	op := "place the files of " + t.Name()
	if len(contents) != len(t.Spec.Files) {
		return fmt.Errorf("%s: there are %d for %d", op, len(contents), len(t.Spec.Files))
	}
	if len(contents) == 0 {
		return nil
	}
	if err := e.RemoveFiles(t.ID); err != nil { // of an attempt that was interrupted
		return err
	}
	dir := e.cfg.filesDir(t.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := mountMemory(dir, contents); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	for i, ref := range t.Spec.Files {
		if err := writeRef(e.cfg.filePath(t.ID, i), ref, contents[i]); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", op, err), e.RemoveFiles(t.ID))
		}
	}
	return nil
}

// mountMemory mounts a tmpfs that just takes the contents.
func mountMemory(dir string, contents [][]byte) error {
	const page = 4096
	size := page
	for _, c := range contents {
		size += (len(c)/page + 1) * page
	}
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700", size, len(contents)+2)
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	err := unix.Mount("orch", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) { // noswap is there from Linux 6.4 on
		err = unix.Mount("orch", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

func writeRef(path string, ref api.FileRef, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	// The owner first: changing it takes bits of the mode away.
	return errors.Join(os.Chown(path, int(ref.UID), int(ref.GID)), os.Chmod(path, fs.FileMode(ref.Mode)))
}

// RemoveFiles takes a task's secrets and configs off the node. It may run still,
// and then keeps what it has open.
func (e *Engine) RemoveFiles(id api.TaskID) error {
	dir := e.cfg.filesDir(id)
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // nothing is mounted there (any more)
			break
		}
		if err != nil {
			return fmt.Errorf("remove the files of task %s: unmount %s: %w", id, dir, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the files of task %s: %w", id, err)
	}
	return nil
}

// tasksWithFiles are the tasks of which there are files on this node.
func (e *Engine) tasksWithFiles() ([]api.TaskID, error) {
	found, err := filepath.Glob(filepath.Join(e.cfg.tasksDir(), "*", "files"))
	if err != nil {
		return nil, err // only of a pattern that is none
	}
	var ids []api.TaskID
	for _, dir := range found {
		ids = append(ids, api.TaskID(filepath.Base(filepath.Dir(dir))))
	}
	return ids, nil
}

// sweepFiles takes away the files of all tasks of this node.
func (e *Engine) sweepFiles() error {
	ids, err := e.tasksWithFiles()
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, e.RemoveFiles(id))
	}
	return errors.Join(errs...)
}
