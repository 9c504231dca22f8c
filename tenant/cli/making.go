package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

const (
	// defaultValidity is how long a request can be used if nothing is said.
	defaultValidity = 7 * 24 * time.Hour
	minValidity     = time.Minute
	maxValidity     = 366 * 24 * time.Hour
	// skew is how far the tenant's clock may be ahead of the module's.
	skew = time.Minute
)

// requestFlags are those of every command that writes a request.
func requestFlags(flags ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "request-file", Usage: "file to which the request is written", Required: true},
		&cli.Int64Flag{Name: "request-validity", Usage: "time for which the request is valid, in seconds", Value: int64(defaultValidity / time.Second)},
		console.ForceFlag(), console.JSONFlag(), console.VerboseFlag(),
	}, flags...)
}

const conductorPort = "conductor-port"

func conductorPortFlag() cli.Flag {
	return &cli.StringFlag{Name: conductorPort, Usage: "TCP port of the Conductor, 1024 to 65535; 5100 unless it is set"}
}

// onOff is a pair of options for one property.
func onOff(name, usage string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: name, Usage: "enable: " + usage},
		&cli.BoolFlag{Name: "no-" + name, Usage: "disable: " + usage},
	}
}

// blank is a request with its id and times filled in.
func (t tool) blank(c *cli.Context, kind request.Kind) (*request.Request, error) {
	validity := time.Duration(c.Int64("request-validity")) * time.Second
	if validity < minValidity || validity > maxValidity {
		return nil, console.Usagef("--request-validity %d is outside %d to %d seconds", c.Int64("request-validity"),
			int64(minValidity/time.Second), int64(maxValidity/time.Second))
	}
	if err := console.CheckNew(c.String("request-file"), c.Bool("force")); err != nil {
		return nil, err
	}
	now := t.env.Clock.Now().UTC().Truncate(time.Second)
	return &request.Request{
		Kind: kind, ID: uuid.NewString(), Created: now, NotBefore: now.Add(-skew), Expires: now.Add(validity),
	}, nil
}

// properties collects what the options say.
func properties(c *cli.Context) (request.Properties, error) {
	var p request.Properties
	for option, target := range map[string]**bool{
		"autostart": &p.Autostart, "restrict-startup": &p.RestrictStartup, "serial-cardreader": &p.SerialCardreader,
	} {
		on, off := c.Bool(option), c.Bool("no-"+option)
		switch {
		case on && off:
			return p, console.Usagef("--%s and --no-%s exclude each other", option, option)
		case on || off:
			*target = &on
		}
	}
	if c.Bool("autostart") && c.Bool("restrict-startup") {
		return p, console.Usagef("--autostart and --restrict-startup exclude each other")
	}
	if c.IsSet("features") {
		f, err := licensing.ParseFeatures(c.String("features"))
		if err != nil {
			return p, err
		}
		p.Features = &f
	}
	if c.IsSet("name") {
		name := c.String("name")
		if err := request.CheckName(name); err != nil {
			return p, err
		}
		p.Name = &name
	}
	if c.IsSet("ip-address") {
		if err := p.Set(request.PropertyIPAddress, c.String("ip-address")); err != nil {
			return p, err
		}
	}
	if c.IsSet(conductorPort) {
		if err := p.Set(request.PropertyConductorPort, c.String(conductorPort)); err != nil {
			return p, err
		}
	}
	return p, nil
}

// announceShare makes a share where the request asks for restrict-startup.
func announceShare(h *enrol.Home, r *request.Request) error {
	if r.Properties.RestrictStartup == nil || !*r.Properties.RestrictStartup {
		return nil
	}
	secret, err := h.NewShare(r.ID)
	if err != nil {
		return err
	}
	r.ShareKey, err = secret.PublicKey()
	return err
}

// write signs the request with the tenantreq key and writes its file.
func (t tool) write(c *cli.Context, h *enrol.Home, r *request.Request) error {
	signer, err := h.Key(enrol.Tenant, enrol.TenantRequest)
	if err != nil {
		return err
	}
	file, err := r.Sign(signer)
	if err != nil {
		return err
	}
	path := c.String("request-file")
	if err := t.env.WriteFile(path, file, 0o644, c.Bool("force")); err != nil {
		return err
	}
	out := map[string]string{"request_file": path, "request_id": r.ID, "expires": r.Expires.Format(time.RFC3339)}
	return t.env.Print(c, out, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Request written to %s, valid until %s. Send it to your service provider.\n", path, out["expires"])
		return err
	})
}
