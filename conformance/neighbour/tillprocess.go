package neighbour

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Errand is what a till's process is told first.
type Errand struct {
	Address        string
	CA             []byte
	User, Password string
	Meters         []*prismtoken1.MeterConfigIn
	Every          time.Duration
}

// receipt is its answer to a request to vend for some time, and the first one.
type receipt struct {
	Took  []time.Duration
	Error string
}

// ServeTill is the life of a till's process: it reads the errand, and then times
// for which it shall vend, until in ends.
func ServeTill(ctx context.Context, in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	var e Errand
	if err := orders.Decode(&e); err != nil {
		return err
	}
	trust, err := vending.ParseTrust(e.CA, time.Now)
	if err != nil {
		return err
	}
	t := &Till{Server: vending.Config{Address: e.Address, Trust: trust, Timeout: 20 * time.Second}, User: e.User, Password: e.Password, Meters: e.Meters, Every: e.Every}
	defer t.Close()
	err = t.SignIn(ctx)
	said := receipt{}
	if err != nil {
		said.Error = err.Error()
	}
	if err := answers.Encode(said); err != nil {
		return err
	}
	for {
		var lasts time.Duration
		if err := orders.Decode(&lasts); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		said := receipt{}
		if said.Took, err = t.Vend(ctx, lasts); err != nil {
			said.Error = err.Error()
		}
		if err := answers.Encode(said); err != nil {
			return err
		}
	}
}

// TillProcess is a till in a process of its own.
type TillProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

// StartTill starts cmd, which calls ServeTill, and waits until it has signed in.
func StartTill(cmd *exec.Cmd, e Errand) (*TillProcess, error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &TillProcess{cmd: cmd, in: in, orders: json.NewEncoder(in), answers: json.NewDecoder(out)}
	err = t.orders.Encode(e)
	if err == nil {
		_, err = t.receive()
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *TillProcess) receive() ([]time.Duration, error) {
	var said receipt
	if err := t.answers.Decode(&said); err != nil {
		return nil, err
	}
	if said.Error != "" {
		return said.Took, errors.New(said.Error)
	}
	return said.Took, nil
}

// Vend has it vend.
func (t *TillProcess) Vend(lasts time.Duration) ([]time.Duration, error) {
	if err := t.orders.Encode(lasts); err != nil {
		return nil, err
	}
	return t.receive()
}

// Close ends it.
func (t *TillProcess) Close() error {
	return errors.Join(t.in.Close(), t.cmd.Wait())
}
