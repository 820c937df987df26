package compose_test

import (
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

func TestLoadBalance(t *testing.T) {
	got, err := load(t, nil, "services: {web: {image: i, x-orch: {affinity: client, prefer: local}}}")
	if err != nil {
		t.Fatal(err)
	}
	if want := (api.Balance{Affinity: api.AffinityClient, Local: true}); got.Services[0].Balance != want {
		t.Errorf("%+v, want %+v", got.Services[0].Balance, want)
	}
	if got, err = load(t, nil, "services: {web: {image: i, x-orch: {return: dsr}}}"); err != nil || got.Services[0].Return != api.ReturnDSR {
		t.Errorf("%+v, %v, want return dsr", got, err)
	}
	for file, want := range map[string]string{
		"services: {web: {image: i, x-orch: {affinity: cookie}}}": "use client",
		"services: {web: {image: i, x-orch: {prefer: remote}}}":   "use local",
		"services: {web: {image: i, x-orch: {return: nat}}}":      "use tunnel or dsr",
		"services: {web: {image: i, x-orch: {return: }}}":         "use tunnel or dsr",
	} {
		if _, err := load(t, nil, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v, want an error that says %q", file, err, want)
		}
	}
}
