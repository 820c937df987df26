package quiet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// timerSlack is how late the kernel may wake a thread of the daemon that waits for
// a time.
//
// An idle daemon costs what it takes to wake its threads. Each time that it does
// something Go's runtime wakes a thread that looks after the others (sysmon), every
// 20 us until they all sleep again: half of all wakes. With this slack it is
// mostly once. Nothing here needs times to be more exact: the runtime itself waits
// in milliseconds, and the shortest election timeout is 75 times as long.
const timerSlack = 2 * time.Millisecond

// Timers gives all threads of this process that slack. Those that are made later get
// it from whichever makes them, and so do other programs that are started.
func Timers() error { return relaxTimers(timerSlack) }

func relaxTimers(slack time.Duration) error {
	const rounds = 10 // more than it takes: threads are few, and soon all there
	for range rounds {
		strict, err := strictThreads(slack)
		if err != nil || len(strict) == 0 {
			return err
		}
		for _, file := range strict {
			err := os.WriteFile(file, strconv.AppendInt(nil, int64(slack), 10), 0)
			if err != nil && !gone(err) {
				return fmt.Errorf("set timer slack: %w", err)
			}
		}
	}
	return errors.New("set timer slack: threads are made faster than they can be told")
}

// strictThreads are this process's threads that have another slack, as the files
// that say so.
func strictThreads(slack time.Duration) ([]string, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, fmt.Errorf("list threads: %w", err)
	}
	want := strconv.FormatInt(int64(slack), 10)
	var files []string
	for _, task := range tasks {
		// A thread has this file where processes are, and not in its directory.
		file := filepath.Join("/proc", task.Name(), "timerslack_ns")
		text, err := os.ReadFile(file)
		if err != nil && !gone(err) {
			return nil, fmt.Errorf("read timer slack: %w", err)
		}
		if err == nil && strings.TrimSpace(string(text)) != want {
			files = append(files, file)
		}
	}
	return files, nil
}

// gone reports whether a file of a thread is missing because the thread has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }
