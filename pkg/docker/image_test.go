package docker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// registry is one that answers every request for an image as given; engines
// trust 127.0.0.0/8 without TLS.
func newRegistry(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/v2/", answer)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func says(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func TestImagePresent(t *testing.T) {
	e := newEngine(t)
	if err := e.EnsureImage(t.Context(), &api.TaskSpec{Image: testImage}); err != nil {
		t.Error(err)
	}
	s, err := e.ImageStatus(t.Context(), &api.ImageStatusRequest{Image: testImage})
	if err != nil || !s.Present || !strings.HasPrefix(s.ID, "sha256:") {
		t.Errorf("status: %+v, %v", s, err)
	}
}

// manifest and blobs of an image of one file, as a registry serves them.
func served(t *testing.T) http.HandlerFunc {
	t.Helper()
	layer, err := tarball([]file{{"hello", 0o644, []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	digest := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		runtime.GOARCH, digest(layer))
	const docker = "application/vnd.docker."
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"`+docker+`distribution.manifest.v2+json",
		"config":{"mediaType":"`+docker+`container.image.v1+json","size":%d,"digest":%q},
		"layers":[{"mediaType":"`+docker+`image.rootfs.diff.tar","size":%d,"digest":%q}]}`,
		len(config), digest(config), len(layer), digest(layer))
	return func(w http.ResponseWriter, r *http.Request) {
		switch path.Base(r.URL.Path) {
		case "1", digest(manifest):
			w.Header().Set("Content-Type", docker+"distribution.manifest.v2+json")
			w.Header().Set("Docker-Content-Digest", digest(manifest))
			w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
			_, _ = w.Write(manifest)
		case digest(config):
			_, _ = w.Write(config)
		case digest(layer):
			_, _ = w.Write(layer)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}
}

func TestImagePulled(t *testing.T) {
	e := newEngine(t)
	ref := newRegistry(t, served(t)) + "/hello:1"
	t.Cleanup(func() {
		if _, err := e.cli.ImageRemove(context.Background(), ref, client.ImageRemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	before, err := e.ImageStatus(t.Context(), &api.ImageStatusRequest{Image: ref})
	if err != nil || before.Present || !before.Pullable || !strings.HasPrefix(before.Digest, "sha256:") {
		t.Errorf("status before: %+v, %v", before, err)
	}
	if err := e.EnsureImage(t.Context(), &api.TaskSpec{Image: ref}); err != nil {
		t.Fatal(err)
	}
	after, err := e.ImageStatus(t.Context(), &api.ImageStatusRequest{Image: ref})
	if err != nil || !after.Present || after.Digest != before.Digest {
		t.Errorf("status after: %+v, %v, before %+v", after, err, before)
	}
}

func TestImageMissing(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, tc := range map[string]struct {
		host   string
		pull   string // HOST stands for the registry
		reason string
	}{
		"unknown to the registry": {
			host:   newRegistry(t, says(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)),
			pull:   "pull image HOST/none:1: the registry has no such image",
			reason: "not on the node, and the registry has no such image",
		},
		"denied": {
			host:   newRegistry(t, says(401, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)),
			pull:   "pull image HOST/none:1: the registry has no such image, or it is private",
			reason: "not on the node, and the registry has no such image, or it is private",
		},
		"no registry there": {
			host:   closed.Addr().String(),
			pull:   "pull image HOST/none:1: cannot reach the registry HOST: connect: connection refused",
			reason: "not on the node, and cannot reach the registry HOST: connect: connection refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			ref := tc.host + "/none:1"
			err := e.EnsureImage(t.Context(), &api.TaskSpec{Image: ref})
			if err == nil {
				t.Fatal("pulled")
			}
			s, statusErr := e.ImageStatus(t.Context(), &api.ImageStatusRequest{Image: ref})
			if statusErr != nil {
				t.Fatal(statusErr)
			}
			want := []string{tc.pull, tc.reason}
			got := []string{err.Error(), s.Reason}
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], tc.host, "HOST")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			if s.Present || s.Pullable {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

func TestImageOfASilentRegistry(t *testing.T) {
	over := make(chan struct{})
	host := newRegistry(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	defer close(over)
	e := newEngine(t)
	start := time.Now()
	s, err := e.ImageStatus(t.Context(), &api.ImageStatusRequest{Image: host + "/none:1"})
	if err != nil || s.Pullable || s.Reason != "not on the node, and its registry did not answer within 5s" {
		t.Errorf("status: %+v, %v", s, err)
	}
	if took := time.Since(start); took > registryTimeout+2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestSandboxImageIsMadeWhenMissing(t *testing.T) {
	e := newEngine(t)
	e.sandboxImage = strings.Replace(testImage, "docker-", "sandbox-", 1) // the real one is in others' use
	t.Cleanup(func() {
		if _, err := e.cli.ImageRemove(context.Background(), e.sandboxImage, client.ImageRemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	errs := make(chan error)
	for range 3 {
		go func() {
			_, err := e.CreateSandbox(t.Context(), newTask(), api.SandboxNet{})
			errs <- err
		}()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := e.cli.ImageInspect(t.Context(), e.sandboxImage); err != nil {
		t.Error(err)
	}
}

func TestPauseProgram(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		b, err := pauseELF(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if f.Machine != machine || f.Type != elf.ET_EXEC || len(f.Progs) != 1 {
			t.Errorf("%s: %+v", arch, f)
		}
		p := f.Progs[0]
		if p.Vaddr+p.Filesz != f.Entry+uint64(len(pauseCode[arch])) || int(p.Filesz) != len(b) {
			t.Errorf("%s: entry %#x, segment %+v", arch, f.Entry, p.ProgHeader)
		}
	}
	if _, err := pauseELF("riscv64"); err == nil {
		t.Error("no error for an architecture without a program")
	}
}

func TestRepository(t *testing.T) {
	for ref, want := range map[string]string{
		"redis":                              "redis",
		"redis:7":                            "redis",
		"docker.io/library/redis:7@sha256:1": "redis",
		"docker.io/me/app":                   "me/app",
		"localhost:5000/app":                 "localhost:5000/app",
		"localhost:5000/app:1":               "localhost:5000/app",
	} {
		if got := repository(ref); got != want {
			t.Errorf("repository(%q) = %q, want %q", ref, got, want)
		}
	}
}

func TestMessages(t *testing.T) {
	for _, tc := range []struct {
		of       func(error) string
		in, want string
	}{
		{
			plainError,
			`failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: ` +
				`unable to start container process: error during container init: exec: "x": executable file not found in $PATH: unknown`,
			`exec: "x": executable file not found in $PATH`,
		},
		{
			plainError,
			`OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": permission denied: unknown`,
			`exec: "x": permission denied`,
		},
		{plainError, `Error response from daemon: something new`, `something new`},
		{
			registryProblem,
			`Error response from daemon: pull access denied for nosuch, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`,
			`the registry has no such image, or it is private`,
		},
		{
			registryProblem,
			`manifest for redis:nosuch not found: manifest unknown: manifest unknown`,
			`the registry has no such image`,
		},
		{
			registryProblem,
			`Error response from daemon: Get "https://r.example/v2/": dial tcp: lookup r.example: no such host`,
			`cannot reach the registry r.example: lookup r.example: no such host`,
		},
		{
			registryProblem,
			`Get "https://r.example/v2/": dial tcp [2001:db8::1]:443: i/o timeout`,
			`cannot reach the registry r.example: i/o timeout`,
		},
		{
			registryProblem,
			`Get "https://r.example/v2/": net/http: request canceled while waiting for connection`,
			`cannot reach the registry r.example: request canceled while waiting for connection`,
		},
		{
			registryProblem,
			`Get "https://r.example/v2/": x509: certificate signed by unknown authority`,
			`cannot reach the registry r.example: x509: certificate signed by unknown authority`,
		},
	} {
		if got := tc.of(errors.New(tc.in)); got != tc.want {
			t.Errorf("%q\n got %q\nwant %q", tc.in, got, tc.want)
		}
	}
}

func plainError(err error) string { return plain(err.Error()) }
