// Command web is the example's web program: a page of posts kept in Redis.
//
//	web          serves on :8080
//	web health   asks the one that serves here whether it is healthy, and exits
//	             with 0 if so; for a healthcheck in an image without a shell
//
// REDIS_ADDR is the database (db:6379), VERSION what /whoami calls itself.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	listenAddr = ":8080"
	healthURL  = "http://127.0.0.1:8080/health"

	// shutdownTime is what open requests get after SIGTERM: less than the 10 s
	// after which orch kills a task.
	shutdownTime = 8 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	run := serve
	if len(os.Args) > 1 && os.Args[1] == "health" {
		run = health
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

// health succeeds if the program that serves in this container is healthy.
func health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, healthURL, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// serve answers requests until ctx is done, then lets those under way end.
func serve(ctx context.Context) error {
	posts := openPosts(cmp.Or(os.Getenv("REDIS_ADDR"), "db:6379"))
	defer posts.Close()
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	site := &site{posts: posts, replica: hostname, version: cmp.Or(os.Getenv("VERSION"), "unknown"), log: slog.Default()}
	server := &http.Server{Handler: site.handler(), ReadHeaderTimeout: 5 * time.Second}
	listener, err := net.Listen("tcp", listenAddr)
	if err != nil {
		return err
	}
	slog.Info("serving", "addr", listenAddr, "version", site.version, "replica", site.replica)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	slog.Info("shutting down")
	within, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	return server.Shutdown(within)
}
