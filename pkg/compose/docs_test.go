package compose

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const docsFile = "../../docs/compose.md"

const docsHead = `# Keys of compose files

What becomes of every key of the compose specification. The table is written from
the one that orch itself uses, by ` + "`go test ./pkg/compose -run TestDocs -update`" + `.
In a path, ` + "`*`" + ` is any name and ` + "`[]`" + ` an item of a list. What is below a key that is
warned about or refused shares its fate; keys that begin with ` + "`x-`" + ` are taken
everywhere. Single values that cannot be acted on are named on deploy, with file, line
and column, before anything is sent.

- **honoured**: as the specification, or else Docker Swarm, has it.
- **honoured, but**: with the difference that stands beside it.
- **warned about**: the service does without, and you are told.
- **refused**: the service would not work, or be less safe, without; nothing is deployed.

| key | | |
|---|---|---|
`

// TestDocs holds docs/compose.md against the table.
func TestDocs(t *testing.T) {
	words := map[verdict]string{honoured: "honoured", differs: "honoured, but", warned: "warned about", refused: "refused"}
	var b strings.Builder
	b.WriteString(docsHead)
	for _, path := range slices.Sorted(maps.Keys(rules)) {
		r := rules[path]
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", path, words[r.verdict], r.say)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(docsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("docs/compose.md (-there +table), go test -update writes it anew:\n%s", diff)
	}
}
