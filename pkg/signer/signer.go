// Package signer has certificates signed by an authority outside of the cluster, by
// the protocol of cfssl's endpoint "sign", which Docker Swarm uses for it, too: a
// request over HTTPS, in which both sides show certificates.
package signer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// timeout bounds one request, also where the caller's time is longer.
	timeout = 8 * time.Second
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 1 << 20
	// maxSaid is how much of what it said is repeated, in bytes.
	maxSaid = 300
)

// Request is what is to be signed.
type Request struct {
	CSR []byte // PKCS #10, DER
	// CommonName and Hosts, URIs among them, are to be in the certificate, in the
	// place of what the CSR says.
	CommonName string
	Hosts      []string
}

// Sign has the authority sign a certificate, DER. What answers at its URL must show
// a certificate that leads to one of ca.Roots, or without any to authority or one
// that this machine trusts; own is what this side shows, nil for nothing.
func Sign(ctx context.Context, ca *api.ExternalCA, authority []byte, own *tls.Certificate, req Request) ([]byte, error) {
	certificate, err := sign(ctx, ca, authority, own, req)
	if err != nil {
		return nil, api.Errorf(api.CodeUnavailable, "the external CA at %s: %v", ca.URL, err)
	}
	return certificate, nil
}

func sign(ctx context.Context, ca *api.ExternalCA, authority []byte, own *tls.Certificate, req Request) ([]byte, error) {
	roots, err := trusted(ca, authority)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if own != nil {
		// Whatever authorities it names: it may trust the root, and name another.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	body, err := json.Marshal(signRequest{
		Hosts: req.Hosts, Profile: ca.Profile, Subject: subject{CN: req.CommonName},
		Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR})),
	})
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, ca.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", "application/json")
	res, err := client.Do(post)
	if err != nil {
		return nil, explain(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	return read(res.Status, data)
}

// trusted are the authorities that may vouch for the external CA.
func trusted(ca *api.ExternalCA, authority []byte) (*x509.CertPool, error) {
	pool, ders := x509.NewCertPool(), ca.Roots
	if len(ders) == 0 {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
		ders = [][]byte{authority}
	}
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the certificates that vouch for it: %w", err)
		}
		pool.AddCert(cert)
	}
	return pool, nil
}

// signRequest and answer are cfssl's.
type signRequest struct {
	Hosts   []string `json:"hosts"`
	Request string   `json:"certificate_request"`
	Subject subject  `json:"subject"`
	Profile string   `json:"profile,omitempty"`
}

type subject struct {
	CN string `json:"CN"`
}

type answer struct {
	Success bool `json:"success"`
	Result  struct {
		Certificate string `json:"certificate"` // PEM
	} `json:"result"`
	Errors []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

func read(status string, data []byte) ([]byte, error) {
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("it answers %s, and not as cfssl does: %q", status, said(data))
	}
	if !a.Success {
		var why []string
		for _, e := range a.Errors {
			why = append(why, fmt.Sprintf("%s (%d)", e.Message, e.Code))
		}
		if len(why) == 0 {
			return nil, fmt.Errorf("it refuses to sign (%s), and does not say why", status)
		}
		return nil, fmt.Errorf("it refuses to sign (%s): %s", status, said([]byte(strings.Join(why, "; "))))
	}
	block, _ := pem.Decode([]byte(a.Result.Certificate))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("its answer has no certificate")
	}
	return block.Bytes, nil
}

// said is what it said, as a line that a terminal may be given.
func said(data []byte) string {
	text := string(data[:min(len(data), maxSaid)])
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(data) > maxSaid {
		text += "..."
	}
	return text
}

// explain says in other words what TLS says.
func explain(err error) error {
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("nobody trusted vouches for what answers there (give its root with cacert=FILE): %w", err)
	case strings.Contains(err.Error(), "remote error: tls"):
		return fmt.Errorf("it does not accept the certificate that it is shown: %w", err)
	}
	return err
}
