package vcmcontrol

import "github.com/tesserae-hsm/tesserae/internal/errkind"

// Port is where a VCM offers a service.
type Port struct {
	Service string
	Port    uint16
}

// DefaultConductorPort is the port of the SM API that clients expect.
const DefaultConductorPort = 5100

// Ports returns the services of a VCM and their ports, in the order in which
// their sockets are handed over. That of the SM API alone can be chosen; 0 is its
// default.
func Ports(conductor uint16) []Port {
	if conductor == 0 {
		conductor = DefaultConductorPort
	}
	return []Port{
		{ServiceTokenAPI, 9443},
		{ServiceSMAPI, conductor},
		{ServiceSSHAdmin, 2201},
		{ServiceMonitor, 2202},
		{ServicePrismToken, 2203},
		{ServiceConductor, 2204},
	}
}

// CheckConductorPort reports whether the SM API can have the port: one that
// needs no privilege and that no other service of a VCM has.
func CheckConductorPort(port uint64) error {
	if port < 1024 || port > 65535 {
		return errkind.Errorf(errkind.Invalid, "port %d is outside 1024 to 65535", port)
	}
	for _, p := range append(Ports(0), Port{ServiceTsmWeb, 8443}) {
		if p.Service != ServiceSMAPI && uint64(p.Port) == port {
			return errkind.Errorf(errkind.Invalid, "port %d is that of the VCM's service %s; choose another", port, p.Service)
		}
	}
	return nil
}
