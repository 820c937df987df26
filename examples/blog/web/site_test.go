package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// redisServer starts a Redis on a port of the loopback network and returns its
// address.
func redisServer(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("redis-server does not listen: %v", err)
		}
	}
}

func startSite(t *testing.T, redis string) *httptest.Server {
	t.Helper()
	posts := openPosts(redis)
	t.Cleanup(func() { posts.Close() })
	s := &site{posts: posts, replica: "here", version: "7", log: slog.New(slog.DiscardHandler)}
	server := httptest.NewServer(s.handler())
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return body(t, resp)
}

func body(t *testing.T, resp *http.Response) (int, string) {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestPosts(t *testing.T) {
	server := startSite(t, redisServer(t))
	if code, text := get(t, server.URL+"/"); code != http.StatusOK || !strings.Contains(text, "No posts yet") {
		t.Fatalf("empty blog: %d %s", code, text)
	}
	for _, title := range []string{"First", "<b>Second</b>"} {
		resp, err := http.PostForm(server.URL+"/posts", url.Values{"title": {title}, "text": {"Text"}})
		if err != nil {
			t.Fatal(err)
		}
		if code, text := body(t, resp); code != http.StatusOK {
			t.Fatalf("post %s: %d %s", title, code, text)
		}
	}
	_, text := get(t, server.URL+"/")
	first, second := strings.Index(text, "First"), strings.Index(text, "&lt;b&gt;Second&lt;/b&gt;")
	if first < 0 || second < 0 || second > first {
		t.Errorf("page does not show the newest first, as text:\n%s", text)
	}
	resp, err := http.PostForm(server.URL+"/posts", url.Values{"title": {" "}})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := body(t, resp); code != http.StatusBadRequest {
		t.Errorf("post without a title: %d, want 400", code)
	}
}

func TestHealthFollowsTheDatabase(t *testing.T) {
	if code, text := get(t, startSite(t, redisServer(t)).URL+"/health"); code != http.StatusOK {
		t.Errorf("with a database: %d %s", code, text)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	if code, _ := get(t, startSite(t, free.Addr().String()).URL+"/health"); code != http.StatusServiceUnavailable {
		t.Errorf("without a database: %d, want 503", code)
	}
}

func TestWhoami(t *testing.T) {
	_, text := get(t, startSite(t, "127.0.0.1:1").URL+"/whoami")
	var got identity
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	got.PID = 0
	if diff := cmp.Diff(identity{Replica: "here", Version: "7", Client: "127.0.0.1"}, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}
