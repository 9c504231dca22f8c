package platform

import (
	"net"
	"testing"
)

func TestDrawnPortsAreBelowThoseOfOutgoingConnections(t *testing.T) {
	t.Parallel()
	for range 20 {
		l, err := listen(t.Context(), "127.0.0.1", "")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if port := l.Addr().(*net.TCPAddr).Port; port < firstPort || port >= endPort {
			t.Errorf("port %d", port)
		}
	}
}

func TestATakenPortIsAnError(t *testing.T) {
	t.Parallel()
	l, err := listen(t.Context(), "127.0.0.1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := listen(t.Context(), "127.0.0.1", port); err == nil {
		again.Close()
		t.Error("the port was bound twice")
	}
}
