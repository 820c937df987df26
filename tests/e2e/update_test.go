package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// testUpdate replaces all replicas, start-first, while clients connect through
// every node. The probe ends at once when it is told to.
func testUpdate(t *testing.T, c *cluster) {
	for _, version := range []string{"v2", "v1"} {
		load := c.startLoad(t, c.names(), probePort)
		start := time.Now()
		c.deploy(t, probes, version)
		took := time.Since(start)
		load.end()
		load.noFailures(t, fmt.Sprintf("update to %s in %.1f s", version, took.Seconds()), start)
		count, err := c.outside().tally(func() (identity, error) {
			id, err := c.outside().whoami(c.addr("n1", probePort))
			if err == nil && id.Version != version {
				err = fmt.Errorf("%s answers with version %s after the update to %s", id.Replica, id.Version, version)
			}
			return id, err
		}, 60)
		if err != nil || len(count) != 3 {
			t.Errorf("after the update: %v, %v", count, err)
		}
	}
}

// testVolume keeps a note in a named volume over the end of its container.
func testVolume(t *testing.T, c *cluster) {
	const note = "remember this"
	before := c.mustServe(t, "probe_store")[0]
	made, err := c.engine.ContainerInspect(t.Context(), before.Status.ContainerID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if data := "DATA=/data/note-" + before.NodeName; !slices.Contains(made.Container.Config.Env, data) {
		t.Errorf("the environment is %q, without %s", made.Container.Config.Env, data)
	}
	named := func(m container.MountPoint) bool {
		return m.Destination == "/data" && strings.HasSuffix(m.Name, "probe_notes-1")
	}
	if !slices.ContainsFunc(made.Container.Mounts, named) {
		t.Errorf("mounted: %+v", made.Container.Mounts)
	}
	resp, err := c.inside(t, before).http(requestTime).PostForm("http://127.0.0.1:8080/note", url.Values{"text": {note}})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("write the note: %v, %v", resp, err)
	}
	resp.Body.Close()
	if _, err := c.engine.ContainerKill(t.Context(), before.Status.ContainerID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	var after api.TaskEntry
	await(t, patience, "another task of the store", func() error {
		tasks, err := c.serving(t.Context(), "n1", "probe_store")
		if err != nil {
			return err
		}
		if len(tasks) != 1 || tasks[0].ID == before.ID {
			return fmt.Errorf("%d tasks serve", len(tasks))
		}
		after = tasks[0]
		return nil
	})
	if after.NodeName != before.NodeName {
		t.Fatalf("the task moved from %s to %s, away from its volume", before.NodeName, after.NodeName)
	}
	text, err := fetch(c.inside(t, after).http(requestTime), "http://127.0.0.1:8080/note")
	if err != nil || string(text) != note {
		t.Errorf("the note is %q, %v, want %q", text, err, note)
	}
}
