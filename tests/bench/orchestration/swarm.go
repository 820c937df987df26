package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

// swarmMode is Docker Swarm: one manager, on an engine of its own with its own
// network namespace, so that the machine's engine is not touched.
type swarmMode struct {
	docker *client.Client
	socket string
	ended  chan error
	daemon *exec.Cmd
}

// swarmAddr is the engine's address in a namespace that has no other.
const swarmAddr = "192.0.2.1"

func newSwarm(ctx context.Context, dir string, program []byte) (*swarmMode, error) {
	dir = filepath.Join(dir, "swarm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s := &swarmMode{socket: "unix://" + filepath.Join(dir, "sock"), ended: make(chan error, 1)}
	s.daemon = exec.Command("sh", "-c", "ip link set lo up && ip addr add "+swarmAddr+"/24 dev lo && exec \"$@\"", "sh",
		"dockerd", "--host", s.socket, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.daemon.Stdout, s.daemon.Stderr = log, log
	s.daemon.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // with the thread that started it the daemon would end
		err := s.daemon.Start()
		started <- err
		if err == nil {
			s.ended <- s.daemon.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start an engine for Swarm: %w", err)
	}
	if err := s.init(ctx, program); err != nil {
		text, _ := os.ReadFile(log.Name())
		s.close()
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return s, nil
}

// init makes the engine a cluster of one that has the images.
func (s *swarmMode) init(ctx context.Context, program []byte) (err error) {
	if s.docker, err = client.New(client.WithHost(s.socket)); err != nil {
		return err
	}
	err = await(ctx, "an engine for Swarm", func() error {
		_, err := s.docker.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		return err
	})
	if err != nil {
		return err
	}
	if _, err := s.docker.SwarmInit(ctx, client.SwarmInitOptions{ListenAddr: swarmAddr, AdvertiseAddr: swarmAddr}); err != nil {
		return fmt.Errorf("docker swarm init: %w", err)
	}
	return importImages(ctx, s.docker, program)
}

func (s *swarmMode) close() {
	if s.docker != nil {
		_ = s.remove(context.Background())
		s.docker.Close()
	}
	_ = s.daemon.Process.Signal(syscall.SIGTERM)
	<-s.ended
}

func (s *swarmMode) name() string { return "Swarm" }

func (s *swarmMode) command(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+s.socket)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out.Bytes())
	}
	return nil
}

func (s *swarmMode) deploy(ctx context.Context, w workload) error {
	if err := s.command(ctx, compose(w), "stack", "deploy", "--resolve-image", "never", "-c", "-", stackName); err != nil {
		return err
	}
	return s.await(ctx, w.replicas, image(w.version))
}

func (s *swarmMode) scale(ctx context.Context, replicas int) error {
	if err := s.command(ctx, "", "service", "scale", "--detach", fmt.Sprintf("%s_web=%d", stackName, replicas)); err != nil {
		return err
	}
	return s.await(ctx, replicas, "")
}

// await waits until so many tasks run, all of that image, which tasks of Swarm do
// once they are healthy, and no others are meant to.
func (s *swarmMode) await(ctx context.Context, replicas int, image string) error {
	return await(ctx, fmt.Sprintf("%d tasks run", replicas), func() error {
		services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{})
		if err != nil {
			return err
		}
		for _, service := range services.Items {
			if u := service.UpdateStatus; u != nil && u.State != "" && u.State != swarm.UpdateStateCompleted {
				return fmt.Errorf("the update is %s: %s", u.State, u.Message)
			}
		}
		tasks, err := s.docker.TaskList(ctx, client.TaskListOptions{Filters: make(client.Filters).Add("desired-state", "running")})
		if err != nil {
			return err
		}
		wrong := slices.ContainsFunc(tasks.Items, func(t swarm.Task) bool {
			return t.Status.State != swarm.TaskStateRunning || image != "" && t.Spec.ContainerSpec.Image != image
		})
		if wrong || len(tasks.Items) != replicas {
			return errors.New("some do not")
		}
		return nil
	})
}

func (s *swarmMode) remove(ctx context.Context) error {
	if err := s.command(ctx, "", "stack", "rm", stackName); err != nil {
		return err
	}
	return await(ctx, "all containers are gone", func() error {
		list, err := s.docker.ContainerList(ctx, client.ContainerListOptions{All: true})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d are left", len(list.Items))
		}
		return err
	})
}
