package neighbour

import (
	"io"
	"net"
	"testing"
	"time"
)

// An answer that comes late makes the calls behind it wait, each less than the one
// before; that the till itself is late makes none.
func TestWhatAWaitCounts(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	began := time.Unix(1e9, 0)
	var c client
	for i, call := range []struct{ due, took, want time.Duration }{
		{0, ms, ms},
		{4 * ms, 10 * ms, 10 * ms}, // free at 14
		{8 * ms, ms, 7 * ms},       // at 15
		{12 * ms, ms, 4 * ms},      // at 16
		{40 * ms, 2 * ms, 2 * ms},  // whenever it was made
		{41 * ms, 3 * ms, 4 * ms},  // at 45
		{100 * ms, 5 * ms, 5 * ms},
	} {
		if got := c.account(began.Add(call.due), call.took); got != call.want {
			t.Errorf("call %d: %s, want %s", i, got, call.want)
		}
	}
}

// What counts is when an answer arrives and not when the till gets to read it.
func TestTheKernelTellsWhenAnAnswerArrived(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const thinks, sleeps = 50 * time.Millisecond, 2 * time.Second
	answered := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err = io.ReadFull(c, make([]byte, 4)); err == nil {
				time.Sleep(thinks)
				_, err = c.Write([]byte("pong"))
			}
		}
		answered <- err
	}()
	c, err := dialStamped(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if _, err := c.took(); err == nil {
		t.Error("an answer that nobody has read has arrived")
	}
	time.Sleep(sleeps)
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if took, err := c.took(); err != nil || took < thinks || took >= sleeps {
		t.Errorf("it took %s (%v), after %s of thinking and before %s of not reading", took, err, thinks, sleeps)
	}
}
