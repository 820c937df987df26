package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// outside are the flags that name an authority outside of the cluster.
type outside struct{ ca, cert string }

func (o *outside) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.ca, "external-ca", "", "where an authority outside of the cluster signs, by cfssl's protocol: URL, or url=URL[,cacert=FILE][,profile=NAME]")
	cmd.Flags().StringVar(&o.cert, "ca-cert", "", "with --external-ca: the certificate of the authority that signs, PEM")
}

// authority reads what the flags name, nil if they name none.
func (o *outside) authority() (*api.Authority, error) {
	switch {
	case o.ca == "" && o.cert == "":
		return nil, nil
	case o.ca == "":
		return nil, fmt.Errorf("--ca-cert is the certificate of an external authority: give its address with --external-ca")
	case o.cert == "":
		return nil, fmt.Errorf("--external-ca takes --ca-cert FILE, too: the certificate of the authority that signs there")
	}
	external, err := parseExternal(o.ca)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(o.cert)
	if err != nil {
		return nil, fmt.Errorf("--ca-cert: %w", err)
	}
	certificate, err := pki.ParseAuthority(data, time.Now())
	if err != nil {
		return nil, fmt.Errorf("--ca-cert %s: %w", o.cert, err)
	}
	return &api.Authority{Certificate: certificate, External: external}, nil
}

// parseExternal reads --external-ca: an address, or what Docker Swarm takes, too.
func parseExternal(text string) (*api.ExternalCA, error) {
	if strings.HasPrefix(text, "https://") {
		text = "url=" + text
	}
	ca := &api.ExternalCA{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "url":
			ca.URL = value
		case "profile":
			ca.Profile = value
		case "cacert":
			roots, err := readCertificates(value)
			if err != nil {
				return nil, fmt.Errorf("--external-ca: %w", err)
			}
			ca.Roots = roots
		case "protocol":
			if value != "cfssl" {
				return nil, fmt.Errorf("--external-ca: protocol %q: there is cfssl alone", value)
			}
		default:
			return nil, fmt.Errorf("--external-ca: %q: give url=URL, cacert=FILE and profile=NAME, with commas between", part)
		}
	}
	return ca, ca.Validate()
}

// readCertificates reads a file of certificates, PEM.
func readCertificates(path string) (certs [][]byte, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certs = append(certs, block.Bytes)
		}
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate, as PEM", path)
	}
	return certs, nil
}

// showOnce are the flags that name what an authority outside is shown once.
type showOnce struct{ cert, key string }

func (s *showOnce) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.cert, "ca-client-cert", "", "where an authority outside of the cluster signs: a certificate to show to it for this node's first one, PEM; it is not kept")
	cmd.Flags().StringVar(&s.key, "ca-client-key", "", "the key of --ca-client-cert, PEM")
}

// read reads what the flags name.
func (s *showOnce) read() (read api.Shown, err error) {
	if (s.cert == "") != (s.key == "") {
		return read, fmt.Errorf("--ca-client-cert and --ca-client-key belong together")
	}
	if s.cert == "" {
		return read, nil
	}
	if read.ClientCert, err = os.ReadFile(s.cert); err != nil {
		return read, fmt.Errorf("--ca-client-cert: %w", err)
	}
	if read.ClientKey, err = os.ReadFile(s.key); err != nil {
		return read, fmt.Errorf("--ca-client-key: %w", err)
	}
	return read, nil
}
