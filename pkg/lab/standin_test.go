package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The nodes of these tests run this test binary in place of orch: it has the
// same command line, and its cluster is a list of host names that a joining
// node adds itself to, over the network between the nodes. The tests in
// tests/ run the real program.
const envStandIn = "ORCH_LAB_STAND_IN"

func TestMain(m *testing.M) {
	switch os.Getenv(envStandIn) {
	case "":
		os.Setenv(envStandIn, "1")
		os.Exit(m.Run())
	case "up":
		os.Setenv(envStandIn, "stuck")
		if _, err := Up(testContext(), Options{Name: os.Args[1], Nodes: 2}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	default:
		if err := standIn(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "Error:", err)
			os.Exit(1)
		}
	}
}

func standIn(args []string) error {
	if args[0] == "daemon" {
		return daemon(flagsOf(args[1:]))
	}
	// --host unix://SOCKET COMMAND ...
	if os.Getenv(envStandIn) == "stuck" && args[2] == "init" {
		select {}
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(args[1], "unix://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintln(conn, strings.Join(args[2:], " "))
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if problem, bad := strings.CutPrefix(string(answer), "error: "); bad {
		return errors.New(problem)
	}
	_, err = os.Stdout.Write(answer)
	return err
}

func flagsOf(args []string) map[string]string {
	flags := make(map[string]string)
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	return flags
}

type standInDaemon struct {
	hostname, addr, file string
	mu                   sync.Mutex
}

// daemon serves the API on its socket, and joining nodes at port 2377. What it
// knows it keeps in its state directory.
func daemon(flags map[string]string) error {
	d := &standInDaemon{
		hostname: flags["--hostname"], addr: flags["--advertise-addr"] + ":2377",
		file: filepath.Join(flags["--state-dir"], "members"),
	}
	fmt.Println("starting", d.hostname)
	socket := filepath.Join(flags["--run-dir"], "orch.sock")
	os.Remove(socket)
	local, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	remote, err := net.Listen("tcp4", d.addr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(flags["--pin-dir"], 0o700); err != nil {
		return err
	}
	go d.serve(remote)
	return d.serve(local)
}

func (d *standInDaemon) serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			line, _ := bufio.NewReader(conn).ReadString('\n')
			answer, err := d.answer(strings.Fields(line))
			if err != nil {
				answer = "error: " + err.Error()
			}
			io.WriteString(conn, answer)
		}()
	}
}

func (d *standInDaemon) answer(words []string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch strings.Join(words[:min(2, len(words))], " ") {
	case "":
		return "", nil
	case "init --advertise-addr":
		return "", d.add(d.hostname + " manager")
	case "join-token manager", "join-token worker":
		return words[1] + "@" + d.addr + "\n", nil
	case "node ls":
		members, err := os.ReadFile(d.file)
		var list []string
		for line := range strings.Lines(string(members)) {
			list = append(list, fmt.Sprintf(`{"hostname": %q, "state": "ready"}`, strings.Fields(line)[0]))
		}
		return "[" + strings.Join(list, ",") + "]", err
	}
	switch words[0] {
	case "join": // ROLE@HOST:PORT
		role, leader, _ := strings.Cut(words[1], "@")
		conn, err := net.DialTimeout("tcp4", leader, 5*time.Second)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		fmt.Fprintln(conn, "member", d.hostname, role)
		_, err = io.ReadAll(conn)
		return "", err
	case "member":
		return "", d.add(words[1] + " " + words[2])
	}
	return "", fmt.Errorf("unknown command %q", words)
}

func (d *standInDaemon) add(member string) error {
	f, err := os.OpenFile(d.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, member)
	return err
}
