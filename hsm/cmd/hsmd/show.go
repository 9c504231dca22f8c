package main

import (
	"io"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

// shown is what show prints: from the socket of a running unit, or from the
// folder of one that does not run.
type shown struct {
	hsmapi.Identity
	State      string      `json:"state"` // sound, tampered, no warrant
	Time       hsmapi.Time `json:"time,omitzero"`
	Partitions int         `json:"partitions"`
}

func showCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "show",
		Usage: "show who the unit is and how it is",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state", Usage: "the state folder of a unit that does not run"},
			&cli.StringFlag{Name: "socket", Usage: "the socket of a running unit"},
			guardFlag(), console.JSONFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			s, err := inspect(env, c)
			if err != nil {
				return err
			}
			return env.Print(c, s, s.write)
		},
	}
}

func inspect(env *console.Env, c *cli.Context) (shown, error) {
	switch state, socket := c.String("state"), c.String("socket"); {
	case (state == "") == (socket == ""):
		return shown{}, console.Usagef("give either --state or --socket; see 'hsmd show --help'")
	case socket != "":
		return overSocket(c, socket)
	}
	u, err := device.Open(c.Context, config(env, c, env.Logger(c)))
	if errkind.Is(err, errkind.Mode) {
		return shown{}, errkind.Errorf(errkind.Mode, "%w, or use 'hsmd show --socket PATH'", err)
	}
	if err != nil {
		return shown{}, err
	}
	defer u.Close()
	s := shown{Identity: u.Identity(), Time: u.Time()}
	s.State = stateOf(s.Identity)
	s.Partitions = u.Count()
	return s, nil
}

func overSocket(c *cli.Context, socket string) (shown, error) {
	client, err := hsmapi.Dial(c.Context, socket)
	if err != nil {
		return shown{}, err
	}
	defer client.Close()
	id, err := client.Identity(c.Context)
	if err != nil {
		return shown{}, err
	}
	s := shown{Identity: id, State: stateOf(id)}
	if id.Tampered {
		return s, nil
	}
	if s.Time, err = client.Time(c.Context); err != nil {
		return shown{}, err
	}
	all, err := client.Partitions(c.Context)
	s.Partitions = len(all)
	return s, err
}

func stateOf(id hsmapi.Identity) string {
	switch {
	case id.Tampered:
		return "tampered"
	case id.Warrant == "":
		return "no warrant"
	}
	return "sound"
}

func (s shown) write(w io.Writer) error {
	rows := [][2]string{
		{"ESN", s.ESN}, {"MODULE ID", s.ModuleID}, {"FIRMWARE", s.FirmwareID}, {"HARDWARE", s.HardwareID},
		{"STATE", s.State}, {"UNIT KEY", s.UnitKey},
	}
	if !s.Tampered {
		rows = append(rows,
			[2]string{"PARTITIONS", strconv.Itoa(s.Partitions)},
			[2]string{"MODULE CLOCK", s.Time.Module.Format(time.RFC3339)},
			[2]string{"HOST CLOCK", s.Time.Host.Format(time.RFC3339)})
	}
	if s.TestMode {
		rows = append(rows, [2]string{"MODE", "CTS test mode: tokens are predictable"})
	}
	if s.Warrant != "" {
		wr, err := warrant.Inspect([]byte(s.Warrant))
		if err != nil {
			return err
		}
		rows = append(rows, [2]string{"FEATURES", wr.Features.String() + " (" + wr.Features.Hex() + ")"})
	}
	if root, err := warrant.ParseKey(s.MakerRoot); err == nil {
		rows = append(rows, [2]string{"MAKER ROOT", ssh.FingerprintSHA256(root)})
	}
	console.Fields(w, rows...)
	return nil
}
