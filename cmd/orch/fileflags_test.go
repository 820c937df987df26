package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

func TestParseFileRef(t *testing.T) {
	for text, want := range map[string]api.FileRef{
		"db.pw": {Class: api.ClassSecret, Name: "db.pw", Target: "/run/secrets/db.pw", Mode: 0o444},
		"source=new,target=db.pw,uid=70,gid=71,mode=0400": {Class: api.ClassSecret, Name: "new", Target: "/run/secrets/db.pw", UID: 70, GID: 71, Mode: 0o400},
		"source=new,target=/etc/./key":                    {Class: api.ClassSecret, Name: "new", Target: "/etc/key", Mode: 0o444},
	} {
		got, err := parseFileRef(api.ClassSecret, text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for _, text := range []string{"", "target=/x", "source=a,mode=0999", "source=a,uid=postgres", "source=a,name=b"} {
		if _, err := parseFileRef(api.ClassSecret, text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
