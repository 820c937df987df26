package docker

import (
	"fmt"

	"github.com/cpuguy83/dockercfg"
	"github.com/distribution/reference"

	"github.com/orch-dev/orch/pkg/api"
)

// identityToken is what credential helpers give as user name with a token in the
// place of a password.
const identityToken = "<token>"

// Credentials returns what the user has stored for the registry of an image, by
// `docker login`; nil if nothing is.
func Credentials(image string) (*api.RegistryAuth, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, fmt.Errorf("credentials for image %s: %w", image, err)
	}
	user, secret, err := dockercfg.GetRegistryCredentials(dockercfg.ResolveRegistryHost(reference.Domain(named)))
	switch {
	case err != nil:
		return nil, fmt.Errorf("credentials for the registry of image %s: %w", image, err)
	case user == "" && secret == "":
		return nil, nil
	case user == "" || user == identityToken:
		return &api.RegistryAuth{Token: secret}, nil
	}
	return &api.RegistryAuth{Username: user, Password: secret}, nil
}
