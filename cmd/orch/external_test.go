package main

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/tests/cfssl"
)

func TestParseExternal(t *testing.T) {
	ca := cfssl.Start(t, "corporate")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := [][]byte{ca.Cert.Raw}
	for _, tt := range []struct {
		text string
		want *api.ExternalCA
		says string
	}{
		{"https://ca:8888/sign", &api.ExternalCA{URL: "https://ca:8888/sign"}, ""},
		{"protocol=cfssl,url=https://ca/sign,cacert=" + file, &api.ExternalCA{URL: "https://ca/sign", Roots: roots}, ""},
		{"https://ca/sign,profile=nodes", &api.ExternalCA{URL: "https://ca/sign", Profile: "nodes"}, ""},
		{"http://ca/sign", nil, "give url=URL"},
		{"url=http://ca/sign", nil, "give the https:// address"},
		{"url=https://user:word@ca/sign", nil, "give the https:// address"},
		{"protocol=acme,url=https://ca/sign", nil, "there is cfssl alone"},
		{"https://ca/sign,cacert=/nowhere", nil, "/nowhere"},
		{"https://ca/sign,cert=x", nil, `"cert=x"`},
	} {
		got, err := parseExternal(tt.text)
		if tt.says != "" {
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.text, err, diff)
		}
	}
	for _, tt := range []struct {
		flags outside
		says  string
	}{
		{outside{ca: "https://ca/sign"}, "takes --ca-cert"},
		{outside{cert: file}, "give its address with --external-ca"},
		{outside{ca: "https://ca/sign", cert: "/nowhere"}, "/nowhere"},
	} {
		if _, err := tt.flags.authority(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: %v", tt.flags, err)
		}
	}
	if got, err := (&outside{ca: "https://ca/sign", cert: file}).authority(); err != nil || got.ID() != ca.Authority().ID() {
		t.Errorf("authority %+v: %v", got, err)
	}
}
