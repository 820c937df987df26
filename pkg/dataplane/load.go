package dataplane

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
)

// ipv6Share is how many times as many IPv4 flows are remembered as IPv6 ones,
// whose entries are larger; briefShare, how many times as many that last as such
// that are open for moments only.
const (
	ipv6Share  = 4
	briefShare = 4
)

// loadSpec reads the programs and maps of this build. Tests give those of others.
var loadSpec = bpf.LoadOrch

// prepareSpec gives the programs and maps their sizes and constants.
func prepareSpec(cfg Config, uplink int) (*ebpf.CollectionSpec, error) {
	spec, err := loadSpec()
	if err != nil {
		return nil, fmt.Errorf("read the built-in programs: %w", err)
	}
	for name, size := range map[string]uint32{
		"flows": cfg.MaxFlows, "flows6": max(1, cfg.MaxFlows/ipv6Share),
		"sessions": cfg.MaxSessions, "sessions6": max(1, cfg.MaxSessions/ipv6Share),
		"endpoints": cfg.MaxEndpoints, "members": cfg.MaxMembers, "departed": cfg.MaxMembers, "hops": cfg.MaxMembers,
		"frontends": cfg.MaxFrontends, "frontends6": cfg.MaxFrontends, "tables": cfg.MaxFrontends, "frontend_stats": cfg.MaxFrontends, "handshakes": cfg.MaxFrontends,
		"backends": cfg.MaxBackends, "backend_stats": cfg.MaxBackends,
	} {
		spec.Maps[name].MaxEntries = size
		if brief := spec.Maps["brief_"+name]; brief != nil {
			brief.MaxEntries = max(1, size/briefShare)
		}
	}
	if xdpFrags() {
		spec.Programs["uplink_xdp"].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	if features.HaveProgramHelper(ebpf.SchedCLS, asm.FnKtimeGetCoarseNs) != nil {
		useFineClock(spec)
	}
	// The helper came with the release that lifted the limit (Linux 5.12).
	if features.HaveProgramHelper(ebpf.SchedCLS, asm.FnCheckMtu) != nil {
		if err := spec.Variables["peer_keeps_mtu"].Set(true); err != nil {
			return nil, fmt.Errorf("set peer_keeps_mtu: %w", err)
		}
	}
	for name, value := range map[string]uint32{"uplink_ifindex": uint32(uplink), "ticks_udp_idle": ticksOf(cfg.UDPIdle)} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return spec, nil
}

// useFineClock has the programs read the clock itself rather than its value at
// the last timer interrupt, which costs less but came with Linux 5.11.
func useFineClock(spec *ebpf.CollectionSpec) {
	for _, program := range spec.Programs {
		for i := range program.Instructions {
			if call := &program.Instructions[i]; call.IsBuiltinCall() && call.Constant == int64(asm.FnKtimeGetCoarseNs) {
				call.Constant = int64(asm.FnKtimeGetNs)
			}
		}
	}
}

// openMaps opens the pinned state maps, and makes those that are not there.
// Made ones are pinned by pinMaps, when the programs are switched to them.
func openMaps(pinDir string, spec *ebpf.CollectionSpec) (maps map[string]*ebpf.Map, made []string, err error) {
	maps = make(map[string]*ebpf.Map)
	defer func() {
		if err != nil {
			closeMaps(maps)
		}
	}()
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") { // constants, made anew for each load
			continue
		}
		pinned, err := ebpf.LoadPinnedMap(pinPath(pinDir, m), nil)
		if errors.Is(err, os.ErrNotExist) {
			pinned, err = ebpf.NewMap(m)
			made = append(made, name)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("open map %s: %w", name, err)
		}
		maps[name] = pinned
	}
	return maps, made, nil
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

func pinMaps(pinDir string, spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, made []string) error {
	for _, name := range made {
		if err := maps[name].Pin(pinPath(pinDir, spec.Maps[name])); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	return nil
}

// removeOldMaps removes the pins of maps whose layout is no longer in use.
func removeOldMaps(pinDir string, spec *ebpf.CollectionSpec) error {
	current := make(map[string]bool)
	for _, m := range spec.Maps {
		current[filepath.Base(pinPath(pinDir, m))] = true
	}
	pins, err := names(filepath.Join(pinDir, mapsDir))
	for _, name := range pins {
		if !current[name] {
			err = errors.Join(err, os.Remove(filepath.Join(pinDir, mapsDir, name)))
		}
	}
	return err
}

// pinPath names a map's pin after its layout, so that programs of two versions
// share a map exactly when they agree about it.
func pinPath(pinDir string, m *ebpf.MapSpec) string {
	h := sha256.New()
	fmt.Fprintln(h, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
	writeLayout(h, m.Key, "key", 0)
	writeLayout(h, m.Value, "value", 0)
	if inner := m.InnerMap; inner != nil {
		fmt.Fprintln(h, inner.Type, inner.KeySize, inner.ValueSize, inner.Flags)
	}
	return filepath.Join(pinDir, mapsDir, fmt.Sprintf("%s_%x", m.Name, h.Sum(nil)[:4]))
}

// writeLayout writes the names, offsets and sizes of a type's members.
func writeLayout(w io.Writer, t btf.Type, name string, offset btf.Bits) {
	if t == nil {
		return
	}
	t = btf.UnderlyingType(t)
	size, _ := btf.Sizeof(t) // a type without a size has none in the layout either
	fmt.Fprintln(w, name, offset, size)
	if s, ok := t.(*btf.Struct); ok {
		for _, m := range s.Members {
			writeLayout(w, m.Type, m.Name, offset+m.Offset)
		}
	}
}

// loadPrograms has the kernel verify every program.
func loadPrograms(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map) (*bpf.OrchPrograms, error) {
	var programs bpf.OrchPrograms
	err := spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{MapReplacements: maps})
	if err == nil {
		return &programs, nil
	}
	kernel := "unknown"
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		kernel = unix.ByteSliceToString(uts.Release[:])
	}
	const advice = "orch needs Linux 5.10 or newer with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_NET_CLS_ACT, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (root has them)"
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("load programs into kernel %s: %w; %s; the verifier's last words:\n%-15v", kernel, err, advice, refused)
	}
	return nil, fmt.Errorf("load programs into kernel %s: %w; %s", kernel, err, advice)
}
