package api

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A history keeps how a task came to be and what happened last, and never
// changes what another copy of the task has.
func TestNote(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var task, before Task
	for i := range 30 {
		before = task
		task.Note(at, fmt.Sprint(i))
	}
	before.Note(at, "else")
	if last := task.History[len(task.History)-1].What; last != "29" {
		t.Errorf("the last event is %q: a copy wrote over it", last)
	}
	if len(task.History) != keptEvents || task.History[0].What != "0" || task.History[keptEvents/2-1].What != "7" {
		t.Errorf("history: %v", task.History)
	}
	task.Note(at, "failed: "+strings.Repeat("é", 300)+"\nsecond line")
	if what := task.History[keptEvents-1].What; len(what) > eventLength+3 || !utf8.ValidString(what) || strings.Contains(what, "\n") {
		t.Errorf("%d bytes: %q", len(what), what)
	}
}
