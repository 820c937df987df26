package compose_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/orch-dev/orch/pkg/api"
)

func TestLoadJobsAndPlacement(t *testing.T) {
	got, err := load(t, nil, `
services:
  migrate:
    image: i
    deploy: {mode: replicated-job, replicas: 5}
    x-orch: {max_concurrent: 2}
  scan:
    image: i
    deploy:
      mode: global-job
      placement:
        constraints: [engine.labels.gpu == a100]
        preferences: [{spread: node.labels.rack}, {spread: engine.labels.disk}]
      resources:
        reservations:
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
  web:
    image: i
    depends_on: {migrate: {condition: service_completed_successfully}}
`)
	if err != nil {
		t.Fatal(err)
	}
	migrate := plainService("migrate")
	migrate.Mode, migrate.Replicas, migrate.MaxConcurrent = api.ModeReplicatedJob, 5, 2
	scan := plainService("scan")
	scan.Mode, scan.Replicas = api.ModeGlobalJob, 0
	scan.Placement.Constraints = []api.Constraint{{Key: "engine.labels.gpu", Op: api.OpEqual, Value: "a100"}}
	scan.Placement.Preferences = []string{"node.labels.rack", "engine.labels.disk"}
	scan.Task.Reservations.Generic = map[string]int64{"gpu": 2}
	web := plainService("web")
	web.DependsOn = []api.Dependency{{Service: "blog_migrate", Condition: api.DependencyCompleted}}
	if diff := cmp.Diff([]api.ServiceSpec{migrate, scan, web}, got.Services, cmpProject); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if len(got.Warnings) > 0 {
		t.Errorf("warnings: %s", messages(got.Warnings))
	}
}
