package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// machineSays is what a machine prints, with the parts that matter.
const machineSays = `guest: started
guest: feature true XDP
guest: feature false TCX
=== RUN   TestDataplane
=== RUN   TestDataplane/xdp/ingress
[    7.942291] eth0: something of the kernel's
=== RUN   TestDataplane/xdp/east_west
    eastwest_test.go:30: no answer
=== NAME  TestDataplane
--- FAIL: TestDataplane (1.23s)
    --- FAIL: TestDataplane/xdp (1.01s)
        --- PASS: TestDataplane/xdp/ingress (0.95s)
        --- FAIL: TestDataplane/xdp/east_west (0.05s)
    --- PASS: TestDataplane/tc (0.20s)
        --- PASS: TestDataplane/tc/ingress (0.15s)
--- PASS: TestClsact (1.23s)
guest: finished
`

func read(release, says string) result {
	r := newResult(kernel{release: release}, "tcg")
	r.read(strings.NewReader(strings.ReplaceAll(says, "\n", "\r\n")), false, func() {})
	return *r
}

func TestTable(t *testing.T) {
	other := strings.NewReplacer("false TCX", "true TCX", "FAIL", "PASS").Replace(machineSays)
	got := table([]result{read("6.1.0-50", machineSays), read("6.12.1", other)})
	want := `|  | 6.1.0-50 | 6.12.1 |
| --- | --- | --- |
| XDP | yes | yes |
| TCX | - | yes |
| ingress | xdp, tc | xdp, tc |
| east west | xdp FAIL | xdp |
| replacing filters | clsact | clsact |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestUnexpected(t *testing.T) {
	good := strings.ReplaceAll(machineSays, "FAIL", "PASS")
	for name, test := range map[string]struct{ release, says, want string }{
		"as documented":    {"6.1.0-50", good, ""},
		"a failure":        {"6.1.0-50", machineSays, "6.1.0-50: TestDataplane: FAIL; TestDataplane/xdp: FAIL; TestDataplane/xdp/east_west: FAIL\n    eastwest_test.go:30: no answer"},
		"a feature is not": {"6.12.1", good, "6.12.1: TCX: false, want true"},
		"it hangs":         {"6.1.0-50", "guest: started\nOops\n", "6.1.0-50: it did not finish; its last lines:\nguest: started\nOops"},
		"nothing matches":  {"6.1.0-50", "guest: started\nguest: finished\n", "6.1.0-50: no test ran"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := unexpected([]result{read(test.release, test.says)}); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDependencies(t *testing.T) {
	got := dependencies("Package: linux-image-7.2\nDepends: dracut | initramfs-tools (>= 0.120), linux-binary-7.2 (= 7.2.13-1), kmod\nSuggests: other\n")
	if diff := cmp.Diff([]string{"dracut", "initramfs-tools", "linux-binary-7.2", "kmod"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
