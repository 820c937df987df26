package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// beat is how often a holder says that it runs.
const beat = 2 * time.Millisecond

// hold writes who runs and when to the end of a file, over and over: the time is
// that of the kernel, which all nodes of a lab share. Whoever reads it sees
// whether two have run at the same time.
func hold() error {
	if len(os.Args) < 3 {
		return errors.New("hold: name the file")
	}
	self, err := os.Hostname()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(f, "%s %d\n", self, now.Nano()); err != nil {
			return err
		}
		time.Sleep(beat)
	}
}
