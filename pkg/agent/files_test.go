package agent

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

func withSecret(t *api.Task) *api.Task {
	t.Spec.Files = []api.FileRef{{Class: api.ClassSecret, Name: "password", ID: "v1", Target: "/run/secrets/password", Mode: 0o400}}
	return t
}

// A task has its secrets before its first instruction, and the node has them no
// longer than it runs.
func TestSecretsComeAndGoWithTheTask(t *testing.T) {
	ends := map[string]func(*machine, *cluster){
		"it ends": func(m *machine, _ *cluster) {
			m.set("a", func(s *api.ContainerState) { s.Phase = api.ContainerExited })
		},
		"it stops":   func(_ *machine, c *cluster) { c.want("a", api.DesiredStop) },
		"it is gone": func(_ *machine, c *cluster) { c.forget("a") },
		"it is unhealthy": func(m *machine, _ *cluster) {
			m.set("a", func(s *api.ContainerState) { s.Health = api.HealthUnhealthy })
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			m, c := newMachine(), newCluster()
			c.files = map[api.FileID]string{"v1": "geheim"}
			stop := run(t, m, c)
			c.put(withSecret(assigned("a", "n1")))
			reaches(t, c, "a", api.TaskRunning)
			want := []string{"sandbox a", "attach a to /ns/a", "files of a: [/run/secrets/password=geheim]", "start a, network ready: true"}
			if diff := cmp.Diff(want, m.history()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// A daemon that comes back leaves them to the task, which runs.
			stop()
			run(t, m, c)
			await(t, "it is adopted", func() bool { return c.acknowledged() })
			if len(m.placed()) != 1 {
				t.Error("the files of a task that runs are gone after a restart")
			}
			end(m, c)
			await(t, "the files are gone", func() bool { return len(m.placed()) == 0 })
		})
	}
}

func (m *machine) placed() []api.TaskID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return api.SortedKeys(m.files)
}

func (c *cluster) acknowledged() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked == c.snap.Index
}

// A manager that cannot give them now is asked again; one that says they are no
// more ends the task, with the reason.
func TestSecretsThatDoNotCome(t *testing.T) {
	m, c := newMachine(), newCluster()
	c.files = map[api.FileID]string{"v1": "geheim"}
	c.filesErr = api.Errorf(api.CodeUnavailable, "this manager does not know task a")
	run(t, m, c)
	c.put(withSecret(assigned("a", "n1")))
	await(t, "it is tried", func() bool { return slices.Contains(m.history(), "sandbox a") })
	c.mu.Lock()
	c.filesErr = nil
	c.mu.Unlock()
	reaches(t, c, "a", api.TaskRunning)

	c.mu.Lock()
	c.filesErr = api.Errorf(api.CodeNotFound, "secret password does not exist any more")
	c.mu.Unlock()
	c.put(withSecret(assigned("b", "n1")))
	if s := reaches(t, c, "b", api.TaskRejected); !strings.Contains(s.Message, "does not exist any more") {
		t.Errorf("rejected: %s", s.Message)
	}
}
