package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orch-dev/orch/pkg/api"
)

// Build makes an image and returns its ID. What the engine says while it builds
// goes to out.
func (i *Images) Build(ctx context.Context, b *api.ImageBuild, out io.Writer) (id string, err error) {
	op := "build image " + b.Name
	opts := client.ImageBuildOptions{
		Version:     build.BuilderV1, // the other one wants a session of its own
		Tags:        append([]string{b.Name}, b.Tags...),
		BuildArgs:   b.Args,
		Labels:      b.Labels,
		Target:      b.Target,
		CacheFrom:   b.CacheFrom,
		NoCache:     b.NoCache,
		PullParent:  b.Pull,
		NetworkMode: b.Network,
		ExtraHosts:  b.ExtraHosts,
		ShmSize:     b.ShmBytes,
		Remove:      true,
		ForceRemove: true,
	}
	if os, arch, ok := strings.Cut(b.Platform, "/"); ok {
		opts.Platforms = []ocispec.Platform{{OS: os, Architecture: arch}}
	}
	var source io.Reader
	if remoteContext(b.Context) {
		if b.Inline != "" {
			return "", fmt.Errorf("%s: a Dockerfile in the compose file needs a directory as context, not %s", op, b.Context)
		}
		opts.RemoteContext, opts.Dockerfile = b.Context, b.Dockerfile
	} else {
		c, err := openContext(b)
		if err != nil {
			return "", fmt.Errorf("%s: %w", op, err)
		}
		archive, feed := io.Pipe()
		defer archive.Close()
		go func() { feed.CloseWithError(c.pack(feed)) }()
		source, opts.Dockerfile = archive, c.dockerfile
	}
	res, err := i.cli.ImageBuild(ctx, source, opts)
	if err != nil {
		return "", wrap(op, err)
	}
	defer res.Body.Close()
	if err := buildOutput(res.Body, out); err != nil {
		return "", wrap(op, err)
	}
	image, err := i.cli.ImageInspect(ctx, b.Name)
	if err != nil {
		return "", wrap(op, err)
	}
	return image.ID, nil
}

// buildOutput passes on what the engine says, and returns what went wrong.
func buildOutput(body io.Reader, out io.Writer) error {
	messages := json.NewDecoder(body)
	for {
		var m struct {
			Stream string
			Error  string
		}
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		case m.Stream != "":
			if _, err := io.WriteString(out, m.Stream); err != nil {
				return err
			}
		}
	}
}

// remoteContext reports whether the engine fetches a context itself.
func remoteContext(context string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(context, prefix) {
			return true
		}
	}
	return false
}
