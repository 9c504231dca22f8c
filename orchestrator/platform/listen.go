package platform

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports of services are drawn below the range that kernels give to outgoing
// connections (32768 and up on Linux): a service must find its port again after
// a restart, and clients remember it.
const (
	firstPort = 20000
	endPort   = 32768
	draws     = 100
)

// listen binds a port of host; without one it draws a free port.
func listen(ctx context.Context, host, port string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	if port != "" {
		return lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	}
	for range draws {
		drawn := strconv.Itoa(firstPort + rand.IntN(endPort-firstPort))
		if l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, drawn)); err == nil {
			return l, nil
		}
	}
	return lc.Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
}
