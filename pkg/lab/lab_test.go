package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/vishvananda/netlink"
)

func testContext() context.Context { return context.Background() }

// labName is one that no other run uses, and is removed with the test.
func labName(t *testing.T, suffix string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("t%d%s", os.Getpid(), suffix)
	t.Cleanup(func() {
		if err := Down(testContext(), name); err != nil {
			t.Errorf("remove lab: %v", err)
		}
	})
	return name
}

func up(t *testing.T, options Options) *Lab {
	t.Helper()
	l, err := Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// left returns every trace of a lab on the machine.
func left(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, root := range []string{stateRoot, runRoot, pinRoot} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			found = append(found, filepath.Join(root, name))
		}
	}
	found = append(found, namespaces(name)...)
	for _, p := range processesOf(name) {
		found = append(found, fmt.Sprint("process ", p.args))
		p.close()
	}
	docker := openDocker(t)
	list, err := docker.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: labelled(name, "")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Items {
		found = append(found, "container "+c.ID)
	}
	volumes, err := docker.VolumeList(t.Context(), client.VolumeListOptions{Filters: labelled(name, "")})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Items {
		found = append(found, "volume "+v.Name)
	}
	return found
}

func mustBeGone(t *testing.T, name string) {
	t.Helper()
	if found := left(t, name); len(found) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(found, "\n  "))
	}
}

func TestUpAndDown(t *testing.T) {
	for _, datapath := range []Datapath{DatapathTC, DatapathXDP} {
		t.Run(string(datapath), func(t *testing.T) {
			name := labName(t, string(datapath))
			l := up(t, Options{Name: name, Nodes: 3, Managers: 2, Datapath: datapath, MTU: 1600})

			if _, err := Up(t.Context(), Options{Name: name}); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "orch lab down") {
				t.Errorf("Up of a lab that is up: %v", err)
			}
			again, err := Open(name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(l, again, cmp.AllowUnexported(Lab{}, Node{}), cmpopts.EquateComparable(l.Node(1).Addr)); diff != "" {
				t.Errorf("opened lab differs (-made +opened):\n%s", diff)
			}
			if members, err := os.ReadFile(filepath.Join(l.Node(1).StateDir, "members")); err != nil || !sameLines(string(members), "n1 manager\nn2 manager\nn3 worker\n") {
				t.Errorf("members %q, %v", members, err)
			}
			for _, n := range l.Nodes() {
				if status := l.Status(n); status.State != StateUp {
					t.Errorf("%s is %s", n.Name, status.State)
				}
				reach(t, l, ClientName, n.Addr.String()+":2377")
			}
			uplinks(t, l, datapath)
			outside(t, l)

			if err := l.Down(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustBeGone(t, name)
			if err := l.Down(t.Context()); err != nil {
				t.Errorf("second Down: %v", err)
			}
			if _, err := Open(name); !errors.Is(err, ErrNotFound) {
				t.Errorf("Open after Down: %v", err)
			}
		})
	}
}

func sameLines(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	slices.Sort(g)
	slices.Sort(w)
	return slices.Equal(g, w)
}

// reach connects once.
func reach(t *testing.T, l *Lab, member, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := l.Dial(ctx, member, "tcp4", addr)
	if err != nil {
		t.Errorf("%s to %s: %v", member, addr, err)
		return
	}
	conn.Close()
}

func uplinks(t *testing.T, l *Lab, datapath Datapath) {
	t.Helper()
	err := l.In("n1", func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil && link.Attrs().MTU != 1600 {
			t.Errorf("MTU %d of the uplink, want 1600", link.Attrs().MTU)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	ip, err := exec.Command("ip", "netns", "exec", l.NamespaceName(switchName), "ip", "link", "show", "n1").CombinedOutput()
	if has := bytes.Contains(ip, []byte("prog/xdp")); err != nil || has != (datapath == DatapathXDP) {
		t.Errorf("switch port with datapath %s: %v\n%s", datapath, err, ip)
	}
}

// outside is what a node reaches by its default route.
func outside(t *testing.T, l *Lab) {
	t.Helper()
	var listener net.Listener
	err := l.InClient(func() (err error) {
		listener, err = net.Listen("tcp4", OutsideAddr.String()+":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	reach(t, l, "n3", OutsideAddr.String()+":80")

	out, err := l.Exec(t.Context(), "n2", "sh", "-c", "echo $ORCH_HOST $ORCH_LAB; ip -4 -brief address show dev eth0")
	want := "unix://" + l.Node(2).Socket + " " + l.Options().Name
	if err != nil || !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "10.201.0.12/24") {
		t.Errorf("Exec: %v\n%s", err, out)
	}
	if _, err := l.Exec(t.Context(), "client", "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("Exec of what fails: %v", err)
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	a := up(t, Options{Name: labName(t, "a"), Nodes: 1})
	b := up(t, Options{Name: labName(t, "a-n1"), Nodes: 1}) // a prefix of each other's names
	names, err := Names(t.Context())
	if err != nil || !slices.Contains(names, a.Options().Name) || !slices.Contains(names, b.Options().Name) {
		t.Errorf("Names() = %v, %v", names, err)
	}
	if err := a.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, a.Options().Name)
	if status := b.Status(b.Node(1)); status.State != StateUp {
		t.Errorf("the other lab's node is %s", status.State)
	}
	reach(t, b, ClientName, "10.201.0.11:2377")
}

func TestFaults(t *testing.T) {
	l := up(t, Options{Name: labName(t, ""), Nodes: 2})
	want := func(node int, state State) {
		t.Helper()
		if got := l.Status(l.Node(node)).State; got != state {
			t.Errorf("n%d is %s, want %s", node, got, state)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(l.Cut("n2"))
	want(2, StateCut)
	do(l.Heal("n2"))
	want(2, StateUp)

	do(l.KillDaemon(t.Context(), "n2"))
	want(2, StateFailed)
	do(l.Start(t.Context(), "n2"))
	want(2, StateUp)

	mine, other := run(t, l, "n2"), run(t, l, "n1")
	do(l.Kill(t.Context(), "n2"))
	want(2, StateOff)
	want(1, StateUp)
	if state := containerState(t, mine); state != container.StateExited {
		t.Errorf("container of the killed node is %s", state)
	}
	if state := containerState(t, other); state != container.StateRunning {
		t.Errorf("container of another node is %s", state)
	}
	if _, err := os.Stat(l.Node(2).PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins of the killed node: %v", err)
	}
	do(l.Kill(t.Context(), "n2"))
	do(l.Start(t.Context(), "n2"))
	want(2, StateUp)
	reach(t, l, ClientName, l.Node(2).Addr.String()+":2377")

	if err := l.Cut("n7"); err == nil || !strings.Contains(err.Error(), `no node "n7"`) {
		t.Errorf("Cut of no node: %v", err)
	}
	do(l.Down(t.Context()))
	mustBeGone(t, l.Options().Name)
}

func TestDownAfterKilledUp(t *testing.T) {
	name := labName(t, "")
	bystander := exec.Command("sleep", "300")
	bystander.Env = append(os.Environ(), envLab+"="+name) // but in no namespace of the lab
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		bystander.Process.Signal(syscall.SIGTERM)
		bystander.Wait()
		if status := bystander.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
			t.Errorf("a process that is not of the lab was ended by %s", status.Signal())
		}
	}()

	for _, damage := range []string{"", "corrupt", "missing"} {
		t.Run("record "+damage, func(t *testing.T) {
			killedUp(t, name)
			switch damage {
			case "corrupt":
				if err := os.WriteFile(recordPath(name), []byte(`{"options`), 0o600); err != nil {
					t.Fatal(err)
				}
			case "missing":
				if err := os.Remove(recordPath(name)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Open(name); err == nil {
				t.Error("a half-made lab was opened")
			}
			if err := Down(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			mustBeGone(t, name)
		})
	}
	t.Run("up again", func(t *testing.T) {
		killedUp(t, name)
		l := up(t, Options{Name: name, Nodes: 1})
		if found := namespaces(name); len(found) != 3 {
			t.Errorf("namespaces of a new lab of one node: %v", found)
		}
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustBeGone(t, name)
	})
}

// killedUp runs Up in another process, and kills it when the daemons are there.
func killedUp(t *testing.T, name string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", name)
	cmd.Env = append(os.Environ(), envStandIn+"=up")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		found := processesOf(name)
		for _, p := range found {
			p.close()
		}
		if len(found) >= 3 { // two daemons and the init that is stuck
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("lab does not come up: %s", problem.String())
		}
	}
}

func TestUpThatFails(t *testing.T) {
	name := labName(t, "")
	_, err := Up(t.Context(), Options{Name: name, Nodes: 2, Binary: "/bin/false"})
	if err == nil || !strings.Contains(err.Error(), "ended at start") {
		t.Errorf("Up: %v", err)
	}
	mustBeGone(t, name)

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	t.Setenv(envStandIn, "stuck")
	if _, err := Up(ctx, Options{Name: name, Nodes: 1}); err == nil {
		t.Error("Up succeeded without init")
	}
	mustBeGone(t, name)
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    string
	}{
		{Options{Name: "No.Dots"}, "lab name"},
		{Options{Name: "../x"}, "lab name"},
		{Options{Nodes: 81}, "81 nodes"},
		{Options{Nodes: 2, Managers: 3}, "3 managers"},
		{Options{Datapath: "dpdk"}, `datapath "dpdk"`},
		{Options{MTU: 100}, "mtu 100"},
	} {
		if _, err := c.options.complete("/orch"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.options, err, c.want)
		}
	}
	got, err := Options{}.complete("/orch")
	want := Options{Name: "lab", Nodes: 3, Managers: 3, Datapath: DatapathAuto, MTU: 1500, Binary: "/orch"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("defaults: %v (-want +got):\n%s", err, diff)
	}
}

func openDocker(t *testing.T) *client.Client {
	t.Helper()
	e, err := openEngine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	return e.docker
}

// run starts a container as a node's daemon would, with a volume.
func run(t *testing.T, l *Lab, node string) string {
	t.Helper()
	docker, ctx := openDocker(t), t.Context()
	labels := map[string]string{labelLab: l.options.Name, labelNode: node}
	volume := "orch-test-" + l.options.Name + node
	if _, err := docker.VolumeCreate(ctx, client.VolumeCreateOptions{Name: volume, Labels: labels}); err != nil {
		t.Fatal(err)
	}
	made, err := docker.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: image(t, l.options.Name), Cmd: []string{"/sleep"}, Labels: labels, NetworkDisabled: true},
		HostConfig: &container.HostConfig{Binds: []string{volume + ":/data"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the image's
		openDocker(t).ContainerRemove(testContext(), made.ID, client.ContainerRemoveOptions{Force: true})
	})
	if _, err := docker.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// image builds an image of one static program, which is removed with the test.
func image(t *testing.T, tag string) string {
	t.Helper()
	dir := t.TempDir()
	source := "package main\n\nimport \"time\"\n\nfunc main() { time.Sleep(time.Hour) }\n"
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "sleep"), filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pack, err := exec.Command("tar", "-C", dir, "-c", "sleep").Output()
	if err != nil {
		t.Fatal(err)
	}
	docker, name := openDocker(t), "orch-test/lab:"+tag
	progress, err := docker.ImageImport(t.Context(), client.ImageImportSource{Source: bytes.NewReader(pack), SourceName: "-"}, name, client.ImageImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, progress); err != nil {
		t.Fatal(err)
	}
	progress.Close()
	t.Cleanup(func() {
		docker := openDocker(t)
		docker.ImageRemove(testContext(), name, client.ImageRemoveOptions{Force: true})
	})
	return name
}

func containerState(t *testing.T, id string) container.ContainerState {
	t.Helper()
	result, err := openDocker(t).ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return result.Container.State.Status
}
