package dataplane

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A program that the kernel refuses is told of with the kernel's version, what
// orch needs, and the verifier's own words.
func TestRefusedProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	spec, err := prepareSpec(Config{}.withDefaults(), 1)
	if err != nil {
		t.Fatal(err)
	}
	maps, _, err := openMaps(t.TempDir(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer closeMaps(maps)
	spec.Programs["from_task"].Instructions = asm.Instructions{asm.Return()} // what it returns was never set
	programs, err := loadPrograms(spec, maps)
	if err == nil {
		programs.Close()
		t.Fatal("the kernel took a program that returns what it never set")
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kernel " + unix.ByteSliceToString(uts.Release[:]), "from_task", "orch needs Linux 5.10 or newer", "R0 !read_ok"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}
