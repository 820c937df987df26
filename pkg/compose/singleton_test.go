package compose_test

import (
	"strings"
	"testing"
)

func TestLoadSingleton(t *testing.T) {
	got, err := load(t, nil, "services: {db: {image: i, x-orch: {singleton: true}}}")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Services[0].Task.Singleton {
		t.Error("it is none")
	}
	for file, want := range map[string]string{
		"services: {db: {image: i, deploy: {replicas: 2}, x-orch: {singleton: true}}}":      "a singleton has one replica",
		"services: {db: {image: i, deploy: {mode: global}, x-orch: {singleton: true}}}":     "a singleton has one replica",
		"services: {db: {image: i, x-orch: {singleton: perhaps}}}":                          "neither true nor false",
		"services: {db: {image: i, x-orch: {max_concurrent: 2}}}":                           "only a replicated job",
		"services: {db: {image: i, deploy: {mode: global-job}, x-orch: {singleton: true}}}": "a singleton has one replica",
	} {
		if _, err := load(t, nil, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v, want an error that says %q", file, err, want)
		}
	}
}
