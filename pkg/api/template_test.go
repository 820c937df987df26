package api

import (
	"slices"
	"testing"
)

func TestFill(t *testing.T) {
	node := &Node{ID: "n", Hostname: "host1", Info: NodeInfo{OS: "linux", Arch: "amd64"}}
	task := &Task{ID: "t", ServiceID: "s", ServiceName: "blog_web", Slot: 3, Spec: TaskSpec{
		Hostname: "web-{{.Task.Slot}}",
		Env:      []string{"PLAIN=1", "WHERE={{ .Node.Hostname }}/{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}/{{.Node.ID}}"},
		Mounts:   []Mount{{Type: MountVolume, Source: "data-{{.Task.Slot}}", Target: "/{{.Task.Slot}}"}},
	}}
	got := task.Filled(node)
	if got.Spec.Hostname != "web-3" || !slices.Equal(got.Spec.Env, []string{"PLAIN=1", "WHERE=host1/linux/amd64/n"}) ||
		got.Spec.Mounts[0].Source != "data-3" || got.Spec.Mounts[0].Target != "/{{.Task.Slot}}" {
		t.Errorf("filled: %+v", got.Spec)
	}
	if task.Spec.Hostname != "web-{{.Task.Slot}}" || task.Spec.Mounts[0].Source != "data-{{.Task.Slot}}" || task.Spec.Env[1] == got.Spec.Env[1] {
		t.Errorf("the task itself has changed: %+v", task.Spec)
	}
	if again := got.Filled(node); again != got {
		t.Error("a task without placeholders is copied")
	}
	for text, want := range map[string]string{
		"{{.Service.ID}} {{.Service.Name}} {{.Task.ID}} {{.Task.Name}}": "s blog_web t blog_web.3",
		"{{.Node.Hostname}}-{{.Task.Slot}}":                             "{{.Node.Hostname}}-3", // not placed yet
		"{{.Banana}} {{ range . }} {{":                                  "{{.Banana}} {{ range . }} {{",
	} {
		if got := task.Fill(text, nil); got != want {
			t.Errorf("Fill(%q) = %q, want %q", text, got, want)
		}
	}
	if got := UnknownPlaceholders("{{.Task.Slot}} {{ .Node.Label }} {{.Node.ID}} {{x}}"); !slices.Equal(got, []string{"{{ .Node.Label }}", "{{x}}"}) {
		t.Errorf("unknown: %q", got)
	}
	if slot := (&Task{NodeID: "n"}).Fill("{{.Task.Slot}}", nil); slot != "n" {
		t.Errorf("the slot of a global task: %q", slot)
	}
}
