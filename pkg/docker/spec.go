package docker

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// application is the engine's description of t's application container, which
// runs what the engine knows as image.
func (c *Config) application(t *api.Task, image string) (client.ContainerCreateOptions, error) {
	mounts, err := c.mounts(t)
	if err != nil {
		return client.ContainerCreateOptions{}, err
	}
	spec := &t.Spec
	cfg := &container.Config{
		Image:       image,
		Entrypoint:  spec.Entrypoint,
		Cmd:         spec.Command,
		Env:         spec.Env,
		User:        spec.User,
		WorkingDir:  spec.WorkingDir,
		Labels:      c.labels(t, RoleTask),
		Healthcheck: healthcheck(spec.Health),
		StopSignal:  spec.StopSignal,
	}
	if spec.StopGrace > 0 {
		cfg.StopTimeout = new(seconds(spec.StopGrace))
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode("container:" + sandboxName(t)),
		// orch restarts, by a new task.
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Mounts:         mounts,
		ReadonlyRootfs: spec.ReadOnly,
		CapAdd:         spec.CapAdd,
		CapDrop:        spec.CapDrop,
		Resources: container.Resources{
			CgroupParent: c.CgroupParent,
			NanoCPUs:     spec.Limits.NanoCPUs,
			Memory:       spec.Limits.MemoryBytes,
		},
	}
	if spec.Limits.Pids > 0 {
		host.PidsLimit = new(spec.Limits.Pids)
	}
	if spec.Init {
		host.Init = new(true)
	}
	if spec.Log != nil {
		host.LogConfig = container.LogConfig{Type: spec.Log.Driver, Config: spec.Log.Options}
	}
	if spec.Container != nil {
		setOptions(cfg, host, spec.Container)
	}
	return client.ContainerCreateOptions{Name: taskName(t), Config: cfg, HostConfig: host}, nil
}

func healthcheck(h *api.Healthcheck) *container.HealthConfig {
	if h == nil {
		return nil
	}
	if h.Disabled() {
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	return &container.HealthConfig{
		Test:        h.Test,
		Interval:    h.Interval,
		Timeout:     h.Timeout,
		Retries:     h.Retries,
		StartPeriod: h.StartPeriod,

		StartInterval: h.StartInterval,
	}
}

// mounts are the task's own, and the two files that say what its network is.
// A user's mount of the same target wins.
func (c *Config) mounts(t *api.Task) ([]mount.Mount, error) {
	var out []mount.Mount
	taken := map[string]bool{}
	for _, m := range t.Spec.Mounts {
		em := mount.Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		switch m.Type {
		case api.MountVolume:
			em.Type = mount.TypeVolume
			em.VolumeOptions = &mount.VolumeOptions{NoCopy: m.NoCopy, Subpath: m.Subpath, Labels: m.Labels}
			if m.Source != "" { // else anonymous: it goes with the container
				em.Source = c.volumeName(m.Source)
				// The engine makes a missing volume, with these labels.
				em.VolumeOptions.Labels = c.volumeLabels(t, &m)
			}
			if m.Driver != "" || m.DriverOptions != nil {
				em.VolumeOptions.DriverConfig = &mount.Driver{Name: m.Driver, Options: m.DriverOptions}
			}
		case api.MountBind:
			em.Type = mount.TypeBind
			em.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(m.Propagation)}
		case api.MountTmpfs:
			em.Type = mount.TypeTmpfs
			em.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.SizeBytes, Mode: os.FileMode(m.Mode)}
		default:
			return nil, fmt.Errorf("mount %s: unknown type %q", m.Target, m.Type)
		}
		taken[filepath.Clean(m.Target)] = true
		out = append(out, em)
	}
	for i, f := range t.Spec.Files {
		taken[f.Target] = true
		out = append(out, mount.Mount{Type: mount.TypeBind, Source: c.filePath(t.ID, i), Target: f.Target, ReadOnly: true})
	}
	for _, f := range []string{resolvConf, hosts} {
		if target := "/etc/" + f; !taken[target] {
			out = append(out, mount.Mount{Type: mount.TypeBind, Source: filepath.Join(c.taskDir(t.ID), f), Target: target})
		}
	}
	return out, nil
}

// sandbox is the engine's description of t's sandbox: as little as can hold a
// network namespace.
func (c *Config) sandbox(t *api.Task, image string) client.ContainerCreateOptions {
	labels := c.labels(t, RoleSandbox)
	maps.DeleteFunc(labels, func(_, v string) bool { return v == "" })
	return client.ContainerCreateOptions{
		Name: sandboxName(t),
		Config: &container.Config{
			Image:  image,
			Labels: labels,
			// The application's container takes both names from here.
			Hostname:   hostname(t),
			Domainname: t.Spec.Options().Domainname,
			// A namespace of its own that the engine puts nothing into: no
			// interface, no address, none of its own plumbing to wait for.
			NetworkDisabled: true,
		},
		HostConfig: &container.HostConfig{
			RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
			LogConfig:      container.LogConfig{Type: "none"},
			IpcMode:        container.IPCModeNone,
			ReadonlyRootfs: true,
			CapDrop:        []string{"ALL"},
			// A program that only ever pauses needs no system call filter, and
			// compiling one is a tenth of the time to start it.
			SecurityOpt: []string{"no-new-privileges", "seccomp=unconfined"},
			Resources:   container.Resources{CgroupParent: c.CgroupParent},
		},
	}
}

// hostname of a task: the spec's, or one that is unique and a valid DNS label.
func hostname(t *api.Task) string {
	if t.Spec.Hostname != "" {
		return t.Spec.Hostname
	}
	return short(t.ID)
}

// seconds rounds up: the engine counts in whole seconds.
func seconds(d time.Duration) int {
	return int((d + time.Second - 1) / time.Second)
}
