// Package interop runs the clients that vendors really use against a live
// PrismToken server: Apache Thrift's own libraries in Python, Java, PHP and Node,
// each walking through sign-in, credit, key change, engineering, verify and
// fetch; and a replay of frames that deployed clients sent.
//
// The clients are sources in clients/, run with code that the Thrift compiler
// generates from the interface at test time.
package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Frames is the name of the replay among the languages.
const Frames = "frames"

// Config says what to run against which server.
type Config struct {
	// Address is host:port; CA a PEM file; PasswordFile holds one line.
	Address, CA, User, PasswordFile string
	// Languages is a subset of Known.
	Languages []string
	// IDL is the interface definition that client code is generated from.
	IDL string
	// NodeModules is a folder with the npm package thrift.
	NodeModules string
	Meters      Meters
	// Timeout bounds one language, with generating and compiling its code.
	Timeout time.Duration
	// Now is the time that certificates are checked against.
	Now func() time.Time
	Out io.Writer
}

// Meters is what the clients vend to: one meter of each algorithm under a supply
// group whose keys the server holds, and where its key may change to.
type Meters struct {
	DRN11, DRN07      string
	SGC, KRN, TI, KEN int
	ToSGC, ToKRN      int
	ToTI              int
}

// Known lists every language, the replay first.
func Known() []string { return append([]string{Frames}, languageNames()...) }

// Step is one call of a client, and a line of its output.
type Step struct {
	Language string   `json:"language"`
	Step     string   `json:"step"`
	OK       bool     `json:"ok"`
	Detail   string   `json:"detail,omitempty"`
	Tokens   []string `json:"tokens,omitempty"`
}

// Steps are what every client must have walked through.
func Steps() []string {
	return []string{
		"ping", "signInWrongPassword", "signIn", "status", "credit11", "credit07", "verify", "engineering", "control",
		"keyChange11", "keyChange07", "test", "fetch", "fetchMissing", "badToken",
	}
}

// Run runs the languages one after the other and writes each step as a line of
// JSON. It fails if a language cannot run here, a step is not ok, or is missing.
func Run(ctx context.Context, cfg Config) error {
	for _, l := range cfg.Languages {
		if !slices.Contains(Known(), l) {
			return errkind.Errorf(errkind.Invalid, "unknown language %q; known are %s", l, strings.Join(Known(), ", "))
		}
	}
	if len(cfg.Languages) == 0 {
		return errkind.Errorf(errkind.Invalid, "no language was asked for; known are %s", strings.Join(Known(), ", "))
	}
	trust, err := vending.LoadTrust(cfg.CA, cfg.Now)
	if err != nil {
		return err
	}
	var failed []string
	for _, l := range cfg.Languages {
		err := cfg.runOne(ctx, trust, l)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return errkind.Errorf(errkind.Unavailable, "interrupted: %w", ctx.Err())
		}
		failed = append(failed, l)
		if err := cfg.print(Step{Language: l, Step: "run", Detail: err.Error()}); err != nil {
			return err
		}
	}
	if len(failed) != 0 {
		return errkind.Errorf(errkind.Refused, "%d of %d client families failed: %s", len(failed), len(cfg.Languages), strings.Join(failed, ", "))
	}
	return nil
}

func (cfg Config) runOne(ctx context.Context, trust *vending.Trust, name string) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	var steps []Step
	var err error
	if name == Frames {
		steps, err = cfg.replay(ctx, trust)
	} else {
		steps, err = cfg.walk(ctx, name)
	}
	bad := 0
	for _, s := range steps {
		s.Language = name
		if !s.OK {
			bad++
		}
		if err := cfg.print(s); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return err
	case bad != 0:
		return fmt.Errorf("%d of %d steps failed", bad, len(steps))
	}
	return nil
}

func (cfg Config) print(s Step) error {
	enc := json.NewEncoder(cfg.Out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("write a step: %w", err)
	}
	return nil
}
