package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// registryTimeout bounds the question whether a registry has an image: a user
// waits for the answer.
const registryTimeout = 5 * time.Second

// EnsureImage makes the image of a task present on the node: it pulls it, as long
// as ctx allows, only if the engine does not have it. An error that wraps
// api.ErrImageNotHere says that no registry is known to have it either.
func (e *Engine) EnsureImage(ctx context.Context, spec *api.TaskSpec) error {
	_, err := e.localImage(ctx, spec)
	if !errors.Is(err, api.ErrImageNotHere) {
		return err
	}
	ref := spec.Image
	if spec.Pin != (api.ImagePin{}) {
		if spec.Pin.Digest == "" {
			return err
		}
		if ref, err = byDigest(spec); err != nil {
			return err
		}
	}
	op := "pull image " + ref
	auth, err := encodeAuth(spec.RegistryAuth)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	res, err := e.cli.ImagePull(ctx, ref, client.ImagePullOptions{RegistryAuth: auth})
	if err != nil {
		return registryError(op, err)
	}
	defer res.Close()
	return registryError(op, res.Wait(ctx))
}

// localImage returns what the engine calls the image that a task is to run: its
// name, if that still stands for what it did at deploy.
func (e *Engine) localImage(ctx context.Context, spec *api.TaskSpec) (string, error) {
	pin := spec.Pin
	candidates := []string{spec.Image, pin.ID}
	if pin.Digest != "" {
		ref, err := byDigest(spec)
		if err != nil {
			return "", err
		}
		candidates = append(candidates, ref)
	}
	for _, ref := range candidates {
		if ref == "" {
			continue
		}
		res, err := e.cli.ImageInspect(ctx, ref)
		switch {
		case cerrdefs.IsNotFound(err):
		case err != nil:
			return "", wrap("inspect image "+ref, err)
		case pin == (api.ImagePin{}), res.ID == pin.ID,
			pin.Digest != "" && manifestDigest(res.RepoDigests, spec.Image) == pin.Digest:
			return ref, nil
		}
	}
	return "", fmt.Errorf("image %s: %w", spec.Image, api.ErrImageNotHere)
}

// byDigest is a task's image by the digest that it is pinned to.
func byDigest(spec *api.TaskSpec) (string, error) {
	named, err := reference.ParseNormalizedNamed(spec.Image)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", spec.Image, err)
	}
	return reference.FamiliarName(named) + "@" + spec.Pin.Digest, nil
}

// encodeAuth puts credentials into the engine's form.
func encodeAuth(auth *api.RegistryAuth) (string, error) {
	if auth == nil {
		return "", nil
	}
	return authconfig.Encode(registry.AuthConfig{Username: auth.Username, Password: auth.Password, IdentityToken: auth.Token})
}

// ImageStatus says whether the node has the image, and whether its registry
// does; that question takes five seconds at most.
func (i *Images) ImageStatus(ctx context.Context, req *api.ImageStatusRequest) (api.ImageStatus, error) {
	ref := req.Image
	status, err := i.imageHere(ctx, ref)
	if err != nil || req.Ask == api.AskNever || status.Present && req.Ask != api.AskAlways || strings.HasPrefix(ref, "sha256:") {
		return status, err
	}
	auth, err := encodeAuth(req.Auth)
	if err != nil {
		return status, fmt.Errorf("look up image %s: %w", ref, err)
	}
	askCtx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	remote, err := i.cli.DistributionInspect(askCtx, ref, client.DistributionInspectOptions{EncodedRegistryAuth: auth})
	switch {
	case err == nil:
		status.Pullable, status.Digest = true, remote.Descriptor.Digest.String()
		return status, nil
	case ctx.Err() != nil:
		return status, wrap("look up image "+ref, ctx.Err())
	case status.Present:
		return status, nil
	case errors.Is(err, context.DeadlineExceeded):
		status.Reason = fmt.Sprintf("not on the node, and its registry did not answer within %s", registryTimeout)
		return status, nil
	case unreachable(err):
		return status, wrap("look up image "+ref, err)
	}
	status.Reason = "not on the node, and " + registryProblem(err)
	return status, nil
}

// imageHere says what the engine has by a name.
func (i *Images) imageHere(ctx context.Context, ref string) (api.ImageStatus, error) {
	local, err := i.cli.ImageInspect(ctx, ref)
	switch {
	case cerrdefs.IsNotFound(err):
		return api.ImageStatus{Reason: "not on the node"}, nil
	case err != nil:
		return api.ImageStatus{}, wrap("inspect image "+ref, err)
	}
	return api.ImageStatus{
		Present: true, ID: local.ID, Created: local.Created, Digest: manifestDigest(local.RepoDigests, ref),
		Platform: api.Platform{OS: local.Os, Arch: local.Architecture},
	}, nil
}

// manifestDigest picks from REPOSITORY@DIGEST entries the one of ref's
// repository. An image that was made here and never pushed has none, one that
// was pulled from several repositories has several.
func manifestDigest(repoDigests []string, ref string) string {
	for _, entry := range repoDigests {
		if _, digest, _ := strings.Cut(entry, "@"); repository(entry) == repository(ref) {
			return digest
		}
	}
	return ""
}

// repository of an image reference, as the engine writes it: without tag,
// digest and the default registry.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if colon := strings.LastIndex(ref, ":"); colon > strings.LastIndex(ref, "/") {
		ref = ref[:colon]
	}
	return strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
}

// What registries and engines say of an image they do not give, each in its own
// way; which image it is, the operation says.
var registryRewrites = []rewriteRule{
	{regexp.MustCompile(`(?i)^(manifest for .* not found|.*manifest unknown).*$`), "the registry has no such image"},
	{regexp.MustCompile(`(?i)^(pull access denied for|.*\bdenied\b|.*unauthorized|.*name unknown|.*repository name not known).*$`),
		"the registry has no such image, or it is private"},
	{regexp.MustCompile(`^(?:Get|Head) "?https?://([^/"]+)[^"]*"?: (?:dial tcp(?: [^ ]+:\d+)?: )?(?:net/http: )?(.*)$`),
		"cannot reach the registry $1: $2"},
}

func registryProblem(err error) string {
	return rewrite(plain(err.Error()), registryRewrites)
}

func registryError(op string, err error) error {
	if err == nil || unreachable(err) {
		return wrap(op, err)
	}
	return fmt.Errorf("%s: %w", op, &engineError{msg: registryProblem(err), err: err})
}
