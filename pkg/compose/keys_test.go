package compose

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

// TestEveryKeyHasARule fails when the compose specification that compose-go
// knows has a key that the table does not, for instance after an upgrade.
func TestEveryKeyHasARule(t *testing.T) {
	for _, path := range schema.AttributePaths() {
		if !hasRule(string(path)) {
			t.Errorf("%s: no rule says what becomes of it", path)
		}
	}
}

// hasRule reports whether path, or a key above it that is not honoured, is in
// the table.
func hasRule(path string) bool {
	if _, ok := rules[path]; ok {
		return true
	}
	for i := strings.LastIndexByte(path, '.'); i > 0; i = strings.LastIndexByte(path[:i], '.') {
		if r, ok := rules[path[:i]]; ok && r.verdict > differs {
			return true
		}
	}
	return false
}

// TestEveryRuleHasAKey fails when the table has a key that the specification
// does not: a typing error, or a key that is gone.
func TestEveryRuleHasAKey(t *testing.T) {
	ours := []string{"services.*.x-orch", "services.*.x-orch.progress_deadline", "services.*.x-orch.max_concurrent", "services.*.x-orch.singleton", "services.*.x-orch.affinity", "services.*.x-orch.prefer", "services.*.x-orch.return", "networks.*.driver_opts.encrypted"}
	known := schema.AttributePaths()
	for path, r := range rules {
		found := false
		for _, k := range known {
			found = found || string(k) == path
		}
		if !found && !slices.Contains(ours, path) {
			t.Errorf("%s: not in the compose specification", path)
		}
		if (r.verdict == honoured) != (r.say == "") {
			t.Errorf("%s: what is said does not fit the verdict", path)
		}
	}
	for path := range checks {
		if r, ok := rules[strings.TrimSuffix(path, ".[]")]; !ok || r.verdict > differs {
			t.Errorf("%s: its check is never reached", path)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	tests := []struct{ key, pattern, want string }{
		{"enviroment", "services.*", `did you mean "environment"?`},
		{"Image", "services.*", `did you mean "image"?`},
		{"iamge", "services.*", `did you mean "image"?`},
		{"replicas", "services.*", `did you mean "deploy.replicas"?`},
		{"parallelism", "services.*.deploy", `did you mean "update_config.parallelism"?`},
		{"sevrices", "", `did you mean "services"?`},
		{"banana", "services.*", ""},
		{"", "services.*", ""},
	}
	for _, test := range tests {
		if got := didYouMean(test.key, test.pattern); got != test.want {
			t.Errorf("didYouMean(%q, %q) = %q, want %q", test.key, test.pattern, got, test.want)
		}
	}
}
