package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type conductorJSON struct {
	Address     string `json:"address"`
	Sockets     int32  `json:"sockets"`
	MaxSockets  int32  `json:"max_sockets"`
	SSHSessions int32  `json:"ssh_sessions"`
	TraceLevel  string `json:"trace_level"`
	Started     string `json:"started"`
	Restarts    int32  `json:"restarts"`
	Accepted    int64  `json:"accepted"`
	Refused     int64  `json:"refused"`
	Commands    int64  `json:"commands"`
}

func (t tool) printConductor(c *cli.Context, d *prismadmin.Conductor) error {
	out := conductorJSON{d.Address, d.Sockets, d.MaxSockets, d.SshSessions, d.TraceLevel, stamp(d.Started), d.Restarts, d.Accepted, d.Refused, d.Commands}
	return t.env.Print(c, out, func(w io.Writer) error {
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		console.Fields(w,
			[2]string{"ADDRESS", out.Address}, [2]string{"SOCKETS", fmt.Sprintf("%d of %d", out.Sockets, out.MaxSockets)},
			[2]string{"SSH SESSIONS", number(int64(out.SSHSessions))}, [2]string{"TRACE LEVEL", out.TraceLevel},
			[2]string{"STARTED", out.Started}, [2]string{"RESTARTS", number(int64(out.Restarts))},
			[2]string{"ACCEPTED", number(out.Accepted)}, [2]string{"REFUSED", number(out.Refused)}, [2]string{"COMMANDS", number(out.Commands)})
		return nil
	})
}

func (t tool) conductorShow() *cli.Command {
	return command("show", "show what the Conductor does; its settings are the preferences conductor.*", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "show the Conductor", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			d, err := p.ConductorShow(ctx)
			if err != nil {
				return err
			}
			return t.printConductor(c, d)
		})
	})
}
