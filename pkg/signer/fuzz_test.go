package signer

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzAnswer looks for answers of an authority outside that make a manager panic,
// that it takes for a certificate that they do not have, or of which it says what
// nobody can read: nothing, too much, or what a terminal would act upon.
func FuzzAnswer(f *testing.F) {
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2, 3}}))
	f.Add([]byte(`{"success":true,"result":{"certificate":` + quoted(certificate) + `},"errors":[],"messages":[]}`))
	f.Add([]byte(`{"success":true,"result":{"certificate":` + quoted(strings.ReplaceAll(certificate, "CERTIFICATE", "PRIVATE KEY")) + `}}`))
	f.Add([]byte(`{"success":false,"result":null,"errors":[{"code":5100,"message":"Invalid policy: no policy for CA operation"}]}`))
	f.Add([]byte(`{"success":false,"errors":[{"code":1,"message":` + quoted(strings.Repeat("é\x1b[2J\n", 100)) + `}]}`))
	f.Add([]byte(`{"success":false}`))
	f.Add([]byte(`{"success":true,"result":null}`))
	f.Add([]byte("<html>" + strings.Repeat("\x00", 1000)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := read("200 OK", data)
		if err == nil {
			var a answer
			if json.Unmarshal(data, &a) != nil || !a.Success {
				t.Fatalf("%q is taken for a certificate", data)
			}
			if again, _ := pem.Decode([]byte(a.Result.Certificate)); again == nil || !bytes.Equal(again.Bytes, der) {
				t.Fatalf("%q has another certificate than %x", data, der)
			}
			return
		}
		text := err.Error()
		if len(text) > 4*maxSaid+100 || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q:\n%q", data, text)
		}
		if strings.HasSuffix(text, ": ") {
			t.Errorf("%q: %q, and not why", data, text)
		}
	})
}

func quoted(text string) string {
	data, _ := json.Marshal(text)
	return string(data)
}
