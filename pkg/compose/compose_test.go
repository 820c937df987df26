package compose_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

var cmpProject = cmp.Options{
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(netip.Addr{}),
}

func load(t *testing.T, env map[string]string, files ...string) (*compose.Project, error) {
	t.Helper()
	var sources []compose.Source
	for i, content := range files {
		name := "compose.yaml"
		if i > 0 {
			name = "override.yaml"
		}
		sources = append(sources, compose.Source{Name: name, Content: []byte(content)})
	}
	return compose.Load(context.Background(), "blog", sources, compose.Options{Env: env, WorkingDir: "/srv/blog"})
}

// messages are problems as a user reads them, one a line.
func messages(problems []compose.Problem) string {
	return (&compose.Problems{List: problems}).Error()
}

// plainService is what a service with nothing but an image becomes.
func plainService(name string) api.ServiceSpec {
	return api.ServiceSpec{
		Name: "blog_" + name, Alias: name,
		Mode: api.ModeReplicated, Replicas: 1,
		Task:     api.TaskSpec{Image: "i", StopGrace: 10 * time.Second},
		Networks: []string{"blog_default"},
		Update:   defaultRules,
		Rollback: defaultRules,
		Restart:  api.RestartPolicy{Condition: api.RestartAny, Delay: 5 * time.Second},
	}
}

func TestLoadWhole(t *testing.T) {
	got, err := load(t, map[string]string{"TAG": "7", "FROM_SHELL": "here"}, `
x-logging: &log {driver: none}
services:
  db:
    image: postgres:16
    environment:
      POSTGRES_DB: blog
      FROM_SHELL:
    volumes: [data:/var/lib/postgresql/data]
    networks: [back]
    healthcheck: {test: pg_isready, interval: 2s, timeout: 1s, retries: 5, start_period: 3s}
    deploy:
      placement: {constraints: [node.role == worker, "node.labels.disk != slow"]}
  web:
    image: blog:${TAG}
    entrypoint: [/web, serve]
    command: --verbose "two words"
    environment: [B=2, A=1]
    user: "1000:1000"
    working_dir: /app
    hostname: web
    labels: {tier: front}
    init: true
    read_only: true
    cap_add: [NET_BIND_SERVICE]
    cap_drop: [ALL]
    stop_signal: SIGINT
    stop_grace_period: 30s
    tmpfs: /tmp
    x-orch: {progress_deadline: 5m}
    volumes:
      - type: tmpfs
        target: /run
      - type: volume
        source: shared
        target: /shared
        read_only: true
    ports:
      - "8080:80"
      - "127.0.0.1:9000-9001:9000-9001/udp"
      - target: 443
    networks: [default, back]
    depends_on:
      db: {condition: service_healthy}
    deploy:
      replicas: 3
      labels: [team=blog]
      placement: {max_replicas_per_node: 2}
      resources:
        limits: {cpus: "0.1", memory: 64M, pids: 50}
        reservations: {cpus: "0.05", memory: 32M}
      restart_policy: {condition: on-failure, delay: 1s, max_attempts: 3, window: 1m}
      update_config: {parallelism: 0, delay: 10s, order: start-first, monitor: 20s, max_failure_ratio: 0.3, failure_action: rollback}
      rollback_config: {parallelism: 2, failure_action: continue}
networks:
  back: {driver: overlay, internal: true}
volumes:
  data:
  shared: {external: true}
`)
	if err != nil {
		t.Fatal(err)
	}
	db := plainService("db")
	db.Networks = []string{"blog_back"}
	db.Placement.Constraints = []api.Constraint{{Key: "node.role", Op: "==", Value: "worker"}, {Key: "node.labels.disk", Op: "!=", Value: "slow"}}
	db.Task.Image = "postgres:16"
	db.Task.Env = []string{"FROM_SHELL=here", "POSTGRES_DB=blog"}
	db.Task.Mounts = []api.Mount{{Type: api.MountVolume, Source: "blog_data", Target: "/var/lib/postgresql/data"}}
	db.Task.Health = &api.Healthcheck{Test: []string{"CMD-SHELL", "pg_isready"}, Interval: 2 * time.Second, Timeout: time.Second, Retries: 5, StartPeriod: 3 * time.Second}
	web := api.ServiceSpec{
		Name: "blog_web", Alias: "web",
		Labels: map[string]string{"team": "blog"},
		Mode:   api.ModeReplicated, Replicas: 3,
		Task: api.TaskSpec{
			Image: "blog:7", Entrypoint: []string{"/web", "serve"}, Command: []string{"--verbose", "two words"},
			Env: []string{"A=1", "B=2"}, User: "1000:1000", WorkingDir: "/app", Hostname: "web",
			Labels: map[string]string{"tier": "front"},
			Mounts: []api.Mount{
				{Type: api.MountTmpfs, Target: "/run"},
				{Type: api.MountVolume, Source: "shared", Target: "/shared", ReadOnly: true},
				{Type: api.MountTmpfs, Target: "/tmp"},
			},
			Limits:       api.Resources{NanoCPUs: 100_000_000, MemoryBytes: 64 << 20, Pids: 50},
			Reservations: api.Resources{NanoCPUs: 50_000_000, MemoryBytes: 32 << 20},
			Init:         true, ReadOnly: true,
			CapAdd: []string{"NET_BIND_SERVICE"}, CapDrop: []string{"ALL"},
			StopSignal: "SIGINT", StopGrace: 30 * time.Second,
		},
		Networks: []string{"blog_back", "blog_default"},
		Ports: []api.Port{
			{Published: 8080, Target: 80, Protocol: api.TCP},
			{Published: 9000, Target: 9000, Protocol: api.UDP, HostIP: netip.MustParseAddr("127.0.0.1")},
			{Published: 9001, Target: 9001, Protocol: api.UDP, HostIP: netip.MustParseAddr("127.0.0.1")},
			{Target: 443, Protocol: api.TCP},
		},
		Placement: api.Placement{MaxReplicasPerNode: 2},
		Update: api.UpdateConfig{
			Parallelism: 0, Delay: 10 * time.Second, Order: api.StartFirst,
			Monitor: 20 * time.Second, MaxFailureRatio: 0.3, FailureAction: api.FailureRollback,
		},
		Rollback:         api.UpdateConfig{Parallelism: 2, Order: api.StopFirst, Monitor: 5 * time.Second, FailureAction: api.FailureContinue},
		ProgressDeadline: 5 * time.Minute,
		Restart:          api.RestartPolicy{Condition: api.RestartOnFailure, Delay: time.Second, MaxAttempts: 3, Window: time.Minute},
		DependsOn:        []api.Dependency{{Service: "blog_db", Condition: api.DependencyHealthy}},
	}
	want := &compose.Project{
		Stack:    "blog",
		Services: []api.ServiceSpec{db, web},
		Networks: []compose.NetworkSpec{{Name: "blog_back", Internal: true}, {Name: "blog_default"}},
		Volumes:  []compose.VolumeSpec{{Name: "blog_data"}, {Name: "shared", External: true}},
	}
	if diff := cmp.Diff(want, got, cmpProject); diff != "" {
		t.Errorf("project (-want +got):\n%s", diff)
	}
}

func TestLoadForms(t *testing.T) {
	tests := []struct {
		name string
		file string
		want func(*api.ServiceSpec)
	}{
		{"nothing but an image", `services: {web: {image: i}}`, func(*api.ServiceSpec) {}},
		{"global", `services: {web: {image: i, deploy: {mode: global}}}`, func(s *api.ServiceSpec) { s.Mode, s.Replicas = api.ModeGlobal, 0 }},
		{"no replicas", `services: {web: {image: i, deploy: {replicas: 0}}}`, func(s *api.ServiceSpec) { s.Replicas = 0 }},
		{"scale", `services: {web: {image: i, scale: 4}}`, func(s *api.ServiceSpec) { s.Replicas = 4 }},
		{"older limits", `services: {web: {image: i, cpus: 1.5, mem_limit: 1g, mem_reservation: 1m, pids_limit: 9}}`, func(s *api.ServiceSpec) {
			s.Task.Limits = api.Resources{NanoCPUs: 1_500_000_000, MemoryBytes: 1 << 30, Pids: 9}
			s.Task.Reservations = api.Resources{MemoryBytes: 1 << 20}
		}},
		{"restart no", `services: {web: {image: i, restart: "no"}}`, func(s *api.ServiceSpec) { s.Restart.Condition = api.RestartNone }},
		{"restart always", `services: {web: {image: i, restart: always}}`, func(*api.ServiceSpec) {}},
		{"restart unless stopped", `services: {web: {image: i, restart: unless-stopped}}`, func(*api.ServiceSpec) {}},
		{"restart on failure", `services: {web: {image: i, restart: "on-failure:3"}}`, func(s *api.ServiceSpec) {
			s.Restart.Condition, s.Restart.MaxAttempts = api.RestartOnFailure, 3
		}},
		{"healthcheck disabled", `services: {web: {image: i, healthcheck: {disable: true}}}`, func(s *api.ServiceSpec) {
			s.Task.Health = &api.Healthcheck{Test: []string{"NONE"}}
		}},
		{"healthcheck list", `services: {web: {image: i, healthcheck: {test: [CMD, /web, health]}}}`, func(s *api.ServiceSpec) {
			s.Task.Health = &api.Healthcheck{Test: []string{"CMD", "/web", "health"}}
		}},
		{"healthcheck timing only", `services: {web: {image: i, healthcheck: {interval: 1m}}}`, func(s *api.ServiceSpec) {
			s.Task.Health = &api.Healthcheck{Interval: time.Minute}
		}},
		{"extension keys", "x-top: {a: b}\nservices: {web: {image: i, x-own: 1, deploy: {x-deep: 2}}}", func(*api.ServiceSpec) {}},
		{"merge key", "x-base: &base {image: i, hostname: h}\nservices: {web: {<<: *base}}", func(s *api.ServiceSpec) { s.Task.Hostname = "h" }},
		{"extends in the file", `services: {web: {extends: {service: a-base}}, a-base: {image: i, hostname: h}}`, func(s *api.ServiceSpec) { s.Task.Hostname = "h" }},
		{"external network", "services: {web: {image: i, networks: [shared]}}\nnetworks: {shared: {external: true}}", func(s *api.ServiceSpec) { s.Networks = []string{"shared"} }},
		{"aliases", "services: {web: {image: i, networks: {n: {aliases: [www, web.example.com, www]}, default: }}}\nnetworks: {n: {name: other}}", func(s *api.ServiceSpec) {
			s.Networks = []string{"blog_default", "other"}
			s.NetworkAliases = map[string][]string{"other": {"www", "web.example.com"}}
		}},
		{"name servers", "services: {web: {image: i, dns: [192.0.2.53, \"2001:db8::53\"]}}", func(s *api.ServiceSpec) {
			s.Task.Container = &api.ContainerOptions{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}}
		}},
		{"container name and links", "services: {web: {image: i, container_name: shop-web}, app: {image: i, links: [web, web:www]}}", func(s *api.ServiceSpec) {
			s.NetworkAliases = map[string][]string{"blog_default": {"shop-web", "www"}}
		}},
		{"port of the tasks' nodes", "services: {web: {image: i, ports: [{target: 80, published: 8080, mode: host}]}, other: {image: i, ports: [{target: 80, published: 8080, mode: host}]}}", func(s *api.ServiceSpec) {
			s.Ports = []api.Port{{Published: 8080, Target: 80, Protocol: api.TCP, Host: true}}
		}},
		{"platform", "services: {web: {image: i, platform: linux/arm64/v8}}", func(s *api.ServiceSpec) {
			s.Placement.Platforms = []api.Platform{{OS: "linux", Arch: "arm64"}}
		}},
		{"no virtual IP", "services: {web: {image: i, deploy: {endpoint_mode: dnsrr}}}", func(s *api.ServiceSpec) { s.EndpointMode = api.EndpointDNSRR }},
		{"a virtual IP", "services: {web: {image: i, deploy: {endpoint_mode: vip}}}", func(*api.ServiceSpec) {}},
		{"named network", "services: {web: {image: i, networks: [n]}}\nnetworks: {n: {name: other}}", func(s *api.ServiceSpec) { s.Networks = []string{"other"} }},
		{"anonymous volume", `services: {web: {image: i, volumes: [/data]}}`, func(s *api.ServiceSpec) {
			s.Task.Mounts = []api.Mount{{Type: api.MountVolume, Target: "/data"}}
		}},
		{"reset in the same file", "services: {web: {image: i, build: !reset null}}", func(*api.ServiceSpec) {}},
		{"on an IPv6 address", `services: {web: {image: i, ports: ["[2001:db8::1]:80:8080"]}}`, func(s *api.ServiceSpec) {
			s.Ports = []api.Port{{Published: 80, Target: 8080, Protocol: api.TCP, HostIP: netip.MustParseAddr("2001:db8::1")}}
		}},
		{"any address", `services: {web: {image: i, ports: ["0.0.0.0:80:8080"]}}`, func(s *api.ServiceSpec) {
			s.Ports = []api.Port{{Published: 80, Target: 8080, Protocol: api.TCP}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := load(t, nil, test.file)
			if err != nil {
				t.Fatal(err)
			}
			want := plainService("web")
			test.want(&want)
			web := got.Services[len(got.Services)-1]
			if diff := cmp.Diff(want, web, cmpProject); diff != "" {
				t.Errorf("service (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadSeveralFiles(t *testing.T) {
	got, err := load(t, nil,
		"services:\n  web:\n    image: i\n    environment: {A: 1, B: 1}\n",
		"services:\n  web:\n    environment: {B: 2}\n    deploy: {replicas: 5}\n---\nservices:\n  web: {hostname: h}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := plainService("web")
	want.Replicas, want.Task.Hostname, want.Task.Env = 5, "h", []string{"A=1", "B=2"}
	if diff := cmp.Diff([]api.ServiceSpec{want}, got.Services, cmpProject); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}

func TestLoadReadsEnvFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.env"), []byte("A=file\nB=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := []compose.Source{{Name: "compose.yaml", Content: []byte(
		"services:\n  web:\n    image: i\n    env_file: [web.env, {path: none.env, required: false}]\n    environment: [B=own]\n")}}
	got, err := compose.Load(context.Background(), "blog", source, compose.Options{WorkingDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A=file", "B=own"}, got.Services[0].Task.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestProfiles(t *testing.T) {
	const file = "services:\n  web: {image: i}\n  debug: {image: i, profiles: [tools]}\n"
	got, err := load(t, nil, file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Services) != 1 || !strings.Contains(messages(got.Warnings), "its profile tools is not enabled") {
		t.Errorf("without the profile: %d services, warnings %q", len(got.Services), messages(got.Warnings))
	}
	got, err = load(t, map[string]string{"COMPOSE_PROFILES": "other, tools"}, file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Services) != 2 || len(got.Warnings) != 0 {
		t.Errorf("with the profile: %d services, warnings %q", len(got.Services), messages(got.Warnings))
	}
}

func TestStackNames(t *testing.T) {
	for _, name := range []string{"", "Blog", "a b", "-a", strings.Repeat("a", 64)} {
		_, err := compose.Load(context.Background(), name, []compose.Source{{Name: "c", Content: []byte("services: {web: {image: i}}")}}, compose.Options{})
		if _, ok := errors.AsType[*compose.Problems](err); !ok {
			t.Errorf("stack %q: error %v, want *Problems", name, err)
		}
	}
}

var defaultRules = api.UpdateConfig{Parallelism: 1, Order: api.StopFirst, Monitor: 5 * time.Second, FailureAction: api.FailurePause}

// Without rollback_config a rollback goes the way of an update; a monitor of 0s
// is not the default.
func TestUpdateRules(t *testing.T) {
	startFirst := defaultRules
	startFirst.Order, startFirst.Monitor = api.StartFirst, 0
	for _, tt := range []struct {
		deploy           string
		update, rollback api.UpdateConfig
	}{
		{`{update_config: {order: start-first, monitor: 0s}}`, startFirst, startFirst},
		{`{update_config: {order: start-first, monitor: 0s}, rollback_config: {}}`, startFirst, defaultRules},
		{`{rollback_config: {order: start-first, monitor: 0s}}`, defaultRules, startFirst},
	} {
		project, err := load(t, nil, "services: {web: {image: i, deploy: "+tt.deploy+"}}")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]api.UpdateConfig{tt.update, tt.rollback}, []api.UpdateConfig{project.Services[0].Update, project.Services[0].Rollback}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.deploy, diff)
		}
	}
}

// The option is read as Docker reads it: there, and without a value, it is on.
func TestIsEncrypted(t *testing.T) {
	for value, want := range map[string]bool{"": true, "true": true, "1": true, "false": false, "0": false} {
		file := "services: {web: {image: a, networks: [n]}}\nnetworks: {n: {driver_opts: {encrypted: \"" + value + "\"}}}\n"
		got, err := compose.Load(context.Background(), "blog", []compose.Source{{Name: "c", Content: []byte(file)}}, compose.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Networks[0].Encrypted != want {
			t.Errorf("%q: %t, want %t", value, got.Networks[0].Encrypted, want)
		}
	}
}
