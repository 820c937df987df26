package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// What is new or has changed is told once, and again after it was gone.
func TestFollow(t *testing.T) {
	looks := [][][]string{
		{{"n1", "isolated", "2"}, {"n2", "spoofed-a-lot", "1"}},
		{{"n1", "isolated", "2"}, {"n2", "spoofed-a-lot", "4"}},
		{{"n1", "isolated", "2"}},
		{{"n1", "isolated", "2"}, {"n2", "spoofed-a-lot", "4"}},
	}
	for format, want := range map[string]string{
		"table": `
NODE   REASON   PACKETS
n1     isolated   2
n2     spoofed-a-lot   1
n2     spoofed-a-lot   4
n2     spoofed-a-lot   4
`,
		"json": `
{"node":"n1","packets":"2","reason":"isolated"}
{"node":"n2","packets":"1","reason":"spoofed-a-lot"}
{"node":"n2","packets":"4","reason":"spoofed-a-lot"}
{"node":"n2","packets":"4","reason":"spoofed-a-lot"}
`,
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetContext(ctx)
		cmd.SetOut(&out)
		look := 0
		ask := func() ([][]string, error) {
			if look++; look == len(looks) {
				interrupt()
			}
			return looks[look-1], nil
		}
		f := &follower{every: 100 * time.Millisecond}
		if err := f.follow(cmd, format, []string{"NODE", "REASON", "PACKETS"}, ask, dropChanged); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, "\n"+out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	f := &follower{every: time.Millisecond}
	if err := f.follow(&cobra.Command{}, "table", nil, nil, nil); err == nil {
		t.Error("the nodes would be asked all the time")
	}
}
