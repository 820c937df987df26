package dataplane

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// Whatever else differs from the last plan, the whole state is computed: a field
// that is not compared would never reach the kernel.
func TestOnlyBackends(t *testing.T) {
	const mtu = 1500
	complete := func() api.NetworkPlan {
		f := published(8080, backend(task1), backend(task2))
		f.Networks = []uint32{1}
		return base(f)
	}
	last := complete()
	d := &Dataplane{last: &last, have: wanted(last, &state{}, mtu), switched: true}
	only := func(plan api.NetworkPlan) string {
		changed, only := d.onlyBackends(plan, mtu)
		return fmt.Sprint(len(changed), only)
	}
	backends := map[string]struct {
		change func(*api.NetworkPlan)
		want   string
	}{
		"nothing":    {func(*api.NetworkPlan) {}, "0 true"},
		"generation": {func(p *api.NetworkPlan) { p.Generation++ }, "0 true"},
		"draining":   {func(p *api.NetworkPlan) { p.Frontends[0].Backends[1].Draining = true }, "1 true"},
		"weight":     {func(p *api.NetworkPlan) { p.Frontends[0].Backends[1].Weight = 2 }, "1 true"},
		"gone":       {func(p *api.NetworkPlan) { p.Frontends[0].Backends = p.Frontends[0].Backends[:1] }, "0 false"},
		"other port": {func(p *api.NetworkPlan) { p.Frontends[0].Backends[0].Port++ }, "0 false"},
		"other task": {func(p *api.NetworkPlan) { p.Frontends[0].Backends[0].Addr = task3 }, "0 false"},
	}
	for name, test := range backends {
		plan := complete()
		test.change(&plan)
		if got := only(plan); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	for name, of := range map[string]func(*api.NetworkPlan) any{
		"plan":     func(p *api.NetworkPlan) any { return p },
		"tunnels":  func(p *api.NetworkPlan) any { return &p.Tunnels },
		"member":   func(p *api.NetworkPlan) any { return &p.Members[0] },
		"endpoint": func(p *api.NetworkPlan) any { return &p.Endpoints[0] },
		"frontend": func(p *api.NetworkPlan) any { return &p.Frontends[0] },
	} {
		fields := reflect.TypeOf(of(&last)).Elem()
		for i := range fields.NumField() {
			field := fields.Field(i).Name
			if field == "Generation" || field == "Backends" {
				continue
			}
			plan := complete()
			alter(t, reflect.ValueOf(of(&plan)).Elem().Field(i))
			if got := only(plan); got != "0 false" {
				t.Errorf("%s of %s: %s, want the whole state", field, name, got)
			}
		}
	}
	if _, only := d.onlyBackends(complete(), mtu+1); only {
		t.Error("another MTU of the uplink: want the whole state")
	}
}

// alter gives a field another value.
func alter(t *testing.T, v reflect.Value) {
	t.Helper()
	switch was := v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("203.0.113.7")))
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.64.0.0/10")))
	case api.TunnelPlan:
		was.Send++
		v.Set(reflect.ValueOf(was))
	case api.FrontendKey:
		was.Port++
		v.Set(reflect.ValueOf(was))
	default:
		switch v.Kind() {
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int:
			v.SetInt(v.Int() + 1)
		case reflect.Uint64:
			v.SetUint(v.Uint() + 1)
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Slice:
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		default:
			t.Fatalf("a field of type %s: teach this test to change it", v.Type())
		}
	}
}
