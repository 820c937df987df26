// Command probe is what the end-to-end tests run in containers: it says who it
// is and whom it sees, and does from inside a task what a test asks for.
//
//	probe          serves HTTP and UDP on :8080
//	probe check    asks the one that serves here whether it is healthy
//	probe job      does its work, which is none, and ends
//	probe hold F   writes to the file F that it runs, for as long as it does
//
// It ends at once when it is told to, without caring for open connections, so
// that what loses nothing then is orch's doing; or slowly, see STOP_TIME.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	listenAddr = ":8080"
	healthURL  = "http://127.0.0.1:8080/health"
)

// Environment variables.
const (
	envVersion = "VERSION"    // what it calls itself
	envDelay   = "START_TIME" // how long it takes until it serves
	envData    = "DATA"       // file that /note writes to
	envStop    = "STOP_TIME"  // how long it goes on serving once it is told to end
)

// sick is the version that never becomes healthy.
const sick = "sick"

func main() {
	run := serve
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "check":
			run = check
		case "hold":
			run = hold
		case "job":
			run = func() error { return nil }
		}
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func check() error {
	resp, err := (&http.Client{Timeout: time.Second}).Get(healthURL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func serve() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	server := &http.Server{}
	go func() {
		<-signals
		if stop, err := time.ParseDuration(os.Getenv(envStop)); err == nil {
			time.Sleep(stop)
			_ = server.Shutdown(context.Background())
		}
		os.Exit(0)
	}()
	if delay, err := time.ParseDuration(os.Getenv(envDelay)); err == nil {
		time.Sleep(delay)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	p := &probe{replica: hostname, version: cmp.Or(os.Getenv(envVersion), "unknown")}
	packets, err := net.ListenPacket("udp", listenAddr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listenAddr)
	if err != nil {
		return err
	}
	slog.Info("serving", "replica", p.replica, "version", p.version)
	failed := make(chan error, 2)
	go func() { failed <- p.echo(packets) }()
	server.Handler = p.handler()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return <-failed
}

type probe struct {
	replica, version string
	sick             atomic.Bool
}

func (p *probe) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if p.version == sick || p.sick.Load() {
			http.Error(w, "not well", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /whoami", p.whoami)
	mux.HandleFunc("GET /think", p.think)
	mux.HandleFunc("GET /resolve", resolve)
	mux.HandleFunc("GET /fetch", fetch)
	mux.HandleFunc("GET /bytes", p.bytes)
	mux.HandleFunc("GET /drip", p.drip)
	mux.HandleFunc("GET /interface", networkInterface)
	mux.HandleFunc("GET /environment", func(w http.ResponseWriter, _ *http.Request) { answer(w, os.Environ()) })
	mux.HandleFunc("GET /note", readNote)
	mux.HandleFunc("POST /note", writeNote)
	mux.HandleFunc("POST /exit", exit)
	mux.HandleFunc("POST /eat", eat)
	mux.HandleFunc("POST /sicken", func(http.ResponseWriter, *http.Request) { p.sick.Store(true) })
	return mux
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		slog.Debug("answer not sent", "err", err)
	}
}

// identity says who answers, and whom it sees asking.
type identity struct {
	Replica string `json:"replica"`
	Version string `json:"version"`
	Client  string `json:"client"`
}

func (p *probe) identity(remote string) identity {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	return identity{Replica: p.replica, Version: p.version, Client: host}
}

func (p *probe) whoami(w http.ResponseWriter, r *http.Request) { answer(w, p.identity(r.RemoteAddr)) }

// think says it after a while in which nothing passes on the connection.
func (p *probe) think(w http.ResponseWriter, r *http.Request) {
	if d, err := time.ParseDuration(r.FormValue("for")); err == nil {
		time.Sleep(d)
	}
	p.whoami(w, r)
}

// echo answers every datagram with who it is and whose it was.
func (p *probe) echo(packets net.PacketConn) error {
	for buffer := make([]byte, 64<<10); ; {
		_, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		text, err := json.Marshal(p.identity(from.String()))
		if err != nil {
			return err
		}
		if _, err := packets.WriteTo(text, from); err != nil {
			slog.Info("datagram not answered", "to", from, "err", err)
		}
	}
}

// resolve looks a name up as the system's files say.
func resolve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	start := time.Now()
	addrs, err := net.DefaultResolver.LookupHost(ctx, r.FormValue("name"))
	result := struct {
		Addrs    []string      `json:"addrs"`
		NotFound bool          `json:"notFound"`
		Error    string        `json:"error"`
		Took     time.Duration `json:"took"`
	}{Addrs: addrs, Took: time.Since(start)}
	if err != nil {
		var problem *net.DNSError
		result.NotFound = errors.As(err, &problem) && problem.IsNotFound
		result.Error = err.Error()
	}
	answer(w, result)
}

// fetch gets a URL from inside the task.
func fetch(w http.ResponseWriter, r *http.Request) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func exit(_ http.ResponseWriter, r *http.Request) {
	code := 0
	_, _ = fmt.Sscan(r.FormValue("code"), &code)
	os.Exit(code)
}

// eat takes memory until there is none.
func eat(http.ResponseWriter, *http.Request) {
	const bite, page = 1 << 20, 4096
	for eaten := [][]byte{}; ; {
		b := make([]byte, bite)
		for i := 0; i < bite; i += page {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
}

// networkInterface tells of the task's interface.
func networkInterface(w http.ResponseWriter, _ *http.Request) {
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var addrs []string
	list, err := device.Addrs()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, addr := range list {
		addrs = append(addrs, addr.String())
	}
	answer(w, struct {
		MTU   int      `json:"mtu"`
		Addrs []string `json:"addrs"`
	}{device.MTU, addrs})
}

// readNote and writeNote keep a text in a file.
func readNote(w http.ResponseWriter, _ *http.Request) {
	text, err := os.ReadFile(os.Getenv(envData))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(text)
}

func writeNote(w http.ResponseWriter, r *http.Request) {
	if err := os.WriteFile(os.Getenv(envData), []byte(r.FormValue("text")), 0o644); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
