package rpc

import "testing"

func TestWithPort(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:2377", "10.0.0.1:1": "10.0.0.1:1", "n1.example": "n1.example:2377", "[fd00::1]": "[fd00::1]:2377", "[fd00::1]:5": "[fd00::1]:5",
	} {
		if got := WithPort(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
