package sysctl

import "testing"

func TestPortSet(t *testing.T) {
	set := func(text string) portSet {
		t.Helper()
		s, err := parsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"8080", "8080"},
		{"9000-9100,8080", "8080,9000-9100"},
		{"80,81", "80-81"},
		{"63-64,65,66-70,68-72,72,74", "63-72,74"},
		{"0,65535", "0,65535"},
		{"65534,65535", "65534-65535"},
		{"0-65535", "0-65535"},
	} {
		if got := set(tt.text).String(); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.text, got, tt.want)
		}
	}
	a, b := set("10-20,40000"), set("15-30,50000")
	for name, tt := range map[string]struct {
		got  portSet
		want string
	}{
		"or": {a.or(b), "10-30,40000,50000"}, "and": {a.and(b), "15-20"},
		"less": {a.less(b), "10-14,40000"}, "less all": {a.less(a), ""},
	} {
		if got := tt.got.String(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	for _, text := range []string{"x", "80,", "80-", "65536", "-1", "80 81"} {
		if s, err := parsePorts(text); err == nil {
			t.Errorf("%q is %q, want an error", text, s)
		}
	}
}
