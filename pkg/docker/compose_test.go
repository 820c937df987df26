package docker

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

// everyOption are services that together have each key of a compose file that
// goes to the engine as it is.
const everyOption = `
services:
  app:
    image: IMAGE
    command: [read, /etc/hosts, /etc/resolv.conf, /proc/sys/net/core/somaxconn, /proc/sys/kernel/msgmax]
    annotations: {team: blog}
    cgroup: private
    cpu_shares: 512
    cpuset: "0"
    device_cgroup_rules: ["c 1:3 rw"]
    devices: ["/dev/null:/dev/nothing:rw"]
    dns_opt: [timeout:3]
    dns_search: [example.org]
    domainname: example.org
    extra_hosts: ["mirror:192.0.2.1", "six:2001:db8::1"]
    group_add: ["42"]
    healthcheck: {test: [CMD, /app, exists, /app], start_period: 30s, start_interval: 2s}
    hostname: web
    ipc: shareable
    logging: {driver: json-file, options: {max-size: 1m}}
    mem_limit: 64m
    memswap_limit: 128m
    oom_score_adj: 100
    runtime: runc
    security_opt: [no-new-privileges:true, seccomp:unconfined]
    shm_size: 32m
    stdin_open: true
    sysctls: {net.core.somaxconn: 1024, kernel.msgmax: 4096}
    tmpfs: ["/cache:size=1m,mode=0700"]
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 64}
    volumes:
      - {type: tmpfs, target: /run, tmpfs: {size: 2m, mode: 0o755}}
      - {type: bind, source: /etc, target: /host, read_only: true, bind: {propagation: private}}
      - {type: volume, source: data, target: /data, volume: {nocopy: true}}
  open:
    image: IMAGE
    command: [say, "1"]
    pid: host
    tty: true
    userns_mode: host
  all:
    image: IMAGE
    privileged: true
volumes:
  data:
    labels: {kind: cache}
    driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}
`

// TestComposeOptions holds what the engine has of containers, and what is seen
// inside of one, against the compose file.
func TestComposeOptions(t *testing.T) {
	e := newEngine(t)
	removeVolume(t, e, "blog_data")
	started := map[string]container.InspectResponse{}
	for name, task := range composeTasks(t, everyOption) {
		if name == "all" { // made, not started: this machine may not have all there is
			if _, err := e.CreateSandbox(t.Context(), task, api.SandboxNet{}); err != nil {
				t.Fatal(err)
			}
			opts, err := e.cfg.application(task, testImage)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.create(t.Context(), task, opts); err != nil {
				t.Fatal(err)
			}
		} else {
			startTask(t, e, task)
			waitState(t, e, task.ID, "exited", exited)
		}
		res, err := e.cli.ContainerInspect(t.Context(), taskName(task), client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		started[name] = res.Container
		switch name {
		case "app":
			seesOptions(t, output(t, e, task.ID))
		case "open":
			if got, want := output(t, e, task.ID), "out 0\r\nerr 0\r\n"; got != want {
				t.Errorf("a terminal shows %q, want %q", got, want)
			}
		}
	}
	app, open := started["app"], started["open"]
	host, limits := app.HostConfig, []container.Ulimit{}
	for _, u := range host.Ulimits {
		limits = append(limits, *u)
	}
	var mounts []any
	for _, m := range host.Mounts {
		switch {
		case m.TmpfsOptions != nil:
			mounts = append(mounts, m.Target, m.TmpfsOptions.SizeBytes, uint32(m.TmpfsOptions.Mode))
		case m.Target == "/host":
			mounts = append(mounts, m.Target, m.ReadOnly, string(m.BindOptions.Propagation))
		case m.Target == "/data":
			mounts = append(mounts, m.Target, m.VolumeOptions.NoCopy, m.VolumeOptions.Labels["kind"], m.VolumeOptions.DriverConfig.Options["o"])
		}
	}
	tests := []struct {
		key       string
		got, want any
	}{
		{"cgroup", string(host.CgroupnsMode), "private"},
		{"cpu_shares", host.CPUShares, int64(512)},
		{"cpuset", host.CpusetCpus, "0"},
		{"device_cgroup_rules", host.DeviceCgroupRules, []string{"c 1:3 rw"}},
		{"devices", host.Devices, []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/nothing", CgroupPermissions: "rw"}}},
		{"group_add", host.GroupAdd, []string{"42"}},
		{"ipc", string(host.IpcMode), "shareable"},
		{"logging", host.LogConfig, container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m"}}},
		{"memswap_limit", host.MemorySwap, int64(128 << 20)},
		{"oom_score_adj", host.OomScoreAdj, 100},
		{"runtime", host.Runtime, "runc"},
		{"security_opt", host.SecurityOpt, []string{"no-new-privileges=true", "seccomp=unconfined"}},
		{"shm_size", host.ShmSize, int64(32 << 20)},
		{"stdin_open", app.Config.OpenStdin, true},
		{"ulimits", limits, []container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}, {Name: "nproc", Soft: 64, Hard: 64}}},
		{"mounts", mounts, []any{"/run", int64(2 << 20), uint32(0o755), "/host", true, "private", "/data", true, "cache", "size=1m", "/cache", int64(1 << 20), uint32(0o700)}},
		{"pid", string(open.HostConfig.PidMode), "host"},
		{"privileged", started["all"].HostConfig.Privileged, true},
		{"tty", open.Config.Tty, true},
		{"userns_mode", string(open.HostConfig.UsernsMode), "host"},
	}
	// Older engines leave these out; docs/compose.md says so.
	if api := e.cli.ClientVersion(); versions.GreaterThanOrEqualTo(api, "1.44") {
		tests = append(tests, []struct {
			key       string
			got, want any
		}{
			{"annotations", host.Annotations["team"], "blog"},
			{"healthcheck.start_interval", app.Config.Healthcheck.StartInterval.String(), "2s"},
		}...)
	} else {
		t.Logf("the engine's API is %s: annotations and start_interval are not looked at", api)
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.key, diff)
		}
	}
}

func seesOptions(t *testing.T, inside string) {
	t.Helper()
	for _, want := range []string{
		`192.0.2.1\tmirror\n2001:db8::1\tsix\n`, `search example.org\noptions ndots:0 timeout:3\n`,
		`somaxconn "1024\n"`, `msgmax "4096\n"`,
	} {
		if !strings.Contains(inside, want) {
			t.Errorf("inside of the task there is no %s:\n%s", want, inside)
		}
	}
}

// composeTasks are a task of each service of a compose file, by the service's
// name in it.
func composeTasks(t *testing.T, file string) map[string]*api.Task {
	t.Helper()
	file = strings.ReplaceAll(file, "IMAGE", testImage)
	project, err := compose.Load(t.Context(), "blog", []compose.Source{{Name: "compose.yaml", Content: []byte(file)}}, compose.Options{WorkingDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*api.Task{}
	for _, s := range project.Services {
		task := newTask()
		task.ServiceName, task.Spec = s.Name, s.Task
		all[s.Alias] = task
	}
	return all
}
