package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// remote is a cluster and who the user is there: what `orch user add` writes, and
// what a context keeps.
type remote struct {
	api.UserAccess
	Key []byte `json:"key"` // PKCS #8
}

func (r *remote) credentials() (*pki.Credentials, error) {
	return pki.NewCredentials(r.Key, r.Certificate)
}

// readRemote reads a file that others may not have been able to read.
func readRemote(path string) (*remote, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &remote{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s is not a file that `orch user add` has written: %w", path, err)
	}
	if _, err := r.credentials(); err != nil {
		return nil, fmt.Errorf("%s is not a file that `orch user add` has written, or is damaged: %w", path, err)
	}
	return r, nil
}

// contexts is where a user keeps their clusters.
type contexts struct{ dir string }

// localContext is the name of the daemon on this machine.
const localContext = "default"

func homeContexts() (*contexts, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("contexts are kept in the home directory: %w", err)
	}
	return &contexts{filepath.Join(home, ".orch")}, nil
}

func (c *contexts) file(name string) string { return filepath.Join(c.dir, "contexts", name+".json") }

func (c *contexts) currentFile() string { return filepath.Join(c.dir, "context") }

// check refuses a name that is none.
func (c *contexts) check(name string) error {
	if err := api.ValidateName("context", name); err != nil {
		return err
	}
	if name == localContext {
		return fmt.Errorf("the context %s is the daemon on this machine", name)
	}
	return nil
}

func (c *contexts) load(name string) (*remote, error) {
	if err := c.check(name); err != nil {
		return nil, err
	}
	r, err := readRemote(c.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no context %q: see `orch context ls`", name)
	}
	return r, err
}

func (c *contexts) save(name string, r *remote) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.file(name)), 0o700); err != nil {
		return fmt.Errorf("keep context %s: %w", name, err)
	}
	return writeFile(c.file(name), data)
}

func (c *contexts) names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(c.file("x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// current is the context that is used if no other is asked for.
func (c *contexts) current() (string, error) {
	data, err := os.ReadFile(c.currentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return localContext, nil
	}
	return strings.TrimSpace(string(data)), err
}

func (c *contexts) use(name string) error {
	if name == localContext {
		if err := os.Remove(c.currentFile()); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := c.load(name); err != nil {
		return err
	}
	return writeFile(c.currentFile(), []byte(name+"\n"))
}

func (c *contexts) remove(name string) error {
	if _, err := c.load(name); err != nil {
		return err
	}
	if current, err := c.current(); err != nil || current == name {
		if err := errors.Join(err, c.use(localContext)); err != nil {
			return err
		}
	}
	return os.Remove(c.file(name))
}

// session is the use of a context by one command.
type session struct {
	contexts *contexts
	name     string
	remote   *remote
	own      *pki.Credentials
	client   *rpc.UserClient
}

func (c *contexts) open(name string) (*session, error) {
	r, err := c.load(name)
	if err != nil {
		return nil, err
	}
	own, err := r.credentials()
	if err != nil {
		return nil, err
	}
	return &session{c, name, r, own, rpc.NewUserClient(own, r.Managers)}, nil
}

// renew keeps a new certificate in the context when it is time for one, or when
// the cluster's authority is being or has been replaced.
func (s *session) renew(ctx context.Context) error {
	if time.Now().Before(s.own.RenewAt()) && !s.client.Outdated() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	next := *s.remote
	var err error
	if next.Key, err = pki.NewKey(rand.Reader); err != nil {
		return err
	}
	request, err := pki.Request(next.Key)
	if err != nil {
		return err
	}
	issued, err := rpc.Call[api.RenewRequest, api.Certificate](ctx, s.client.Client, api.ProcRenew, &api.RenewRequest{Request: request})
	if err != nil {
		return fmt.Errorf("renew the certificate of context %s: %w", s.name, err)
	}
	next.Certificate = *issued
	if _, err := next.credentials(); err != nil {
		return err
	}
	return s.contexts.save(s.name, &next)
}

// writeFile replaces a file as one step, readable by its owner alone.
func writeFile(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
