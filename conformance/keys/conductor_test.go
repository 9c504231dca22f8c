package keys_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// The Conductor is on the port that the tenant asked for, then on another one;
// every document says so, and nothing else of the VCM moves.
func TestConductorPort(t *testing.T) {
	t.Parallel()
	p := &platform{t: t, Rig: binaries.New(t)}
	v, err := p.Hosted(t.Context(), rig.Plan{Name: "keys", Request: []string{"--conductor-port", "5210"}})
	if err != nil {
		t.Fatal(err)
	}
	p.vcm = v
	if err := p.Enrol(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(p.endpoint("prismtoken"))
	if err != nil {
		t.Fatal(err)
	}
	is := func(port int) {
		t.Helper()
		address := net.JoinHostPort(host, strconv.Itoa(port))
		if got := p.endpoint("smapi"); got != address {
			t.Errorf("vcmadmin says %s, not %s", got, address)
		}
		if said := p.tenant("conductor", "show"); !strings.Contains(said, address) {
			t.Errorf("ptokenadmin says %q, not %s", said, address)
		}
		dir := t.TempDir()
		p.must(rig.Provider, "vcmadmin", "show", "--outdir", dir, v.UUID)
		file := read(t, dir+"/"+v.UUID+".vcm")
		for _, line := range []string{"Endpoint.smapi: " + address, "Property.conductor_port: " + strconv.Itoa(port)} {
			if !strings.Contains(file, line+"\n") {
				t.Errorf("the VCM file does not say %q:\n%s", line, file)
			}
		}
		dialTCP(t, address).must(2, "DI")
		for _, other := range []int{5100, 5210, 5211} {
			if other == port {
				continue
			}
			c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(other)), time.Second)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("port %d: %v", other, err)
				if err == nil {
					c.Close()
				}
			}
		}
	}
	is(5210)
	file := p.Mail("port.req")
	p.must(rig.Tenant, "hsmadmin", "vcm", "setproperties", "--uuid", v.UUID, "--request-file", file, "--conductor-port", "5211")
	p.tenant("maintenance", "on")
	p.must(rig.Provider, "vcmadmin", "stop", "--yes", v.UUID)
	p.must(rig.Provider, "vcmadmin", "properties", "set", "--request", file, v.UUID, "conductor_port", "5211")
	p.must(rig.Provider, "vcmadmin", "start", v.UUID)
	is(5211)
}
