package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	. "github.com/tesserae-hsm/tesserae/conformance/lifecycle"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/failure"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// client is one of the provider's scripts.
type client struct {
	*world
	id      int
	draw    *rand.Rand
	session *rig.Hosting
}

func (c *client) run(ctx context.Context) {
	defer c.hangUp()
	for ctx.Err() == nil {
		if c.session == nil {
			var err error
			if c.session, err = c.direct.Dial(ctx); err != nil {
				c.session = nil
				time.Sleep(20 * time.Millisecond)
				continue
			}
		}
		// A call is not ended with the test: its answer is wanted.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		c.step(call)
		cancel()
	}
}

func (c *client) hangUp() {
	if c.session != nil {
		c.session.Close()
		c.session = nil
	}
}

func (c *client) step(ctx context.Context) {
	m, id := c.choose()
	if m == nil {
		c.create(ctx)
		return
	}
	switch n := c.draw.IntN(100); {
	case n < 30:
		c.do(ctx, m, Start, func() error { _, err := c.session.Start(ctx, id, nil, 20); return err })
	case n < 55:
		c.do(ctx, m, Stop, func() error { _, err := c.session.Stop(ctx, id, true, 5); return err })
	case n < 70:
		c.set(ctx, m, id)
	case n < 78:
		c.do(ctx, m, Delete, func() error { return c.session.Remove(ctx, id, true) })
	default:
		_ = c.list(ctx)
	}
}

// choose picks a VCM, by the id that a list or its creation has told; none means
// that there is room for another one.
func (c *client) choose() (m *made, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var there []*made
	for _, m := range c.made {
		if m.uuid != "" && !m.gone {
			there = append(there, m)
		}
	}
	if len(there) < vcms && c.draw.IntN(vcms) >= len(there) {
		return nil, ""
	}
	slices.SortFunc(there, func(a, b *made) int { return strings.Compare(a.name, b.name) })
	m = there[c.draw.IntN(len(there))]
	return m, m.uuid
}

func (c *client) create(ctx context.Context) {
	key, err := rig.NewKey()
	if err != nil {
		c.t.Error(err)
		return
	}
	c.mu.Lock()
	m := &made{name: fmt.Sprintf("v%03d", len(c.made)), signer: key, called: c.now()}
	c.made[m.name] = m
	c.mu.Unlock()
	file, err := sign(m, request.Request{Kind: request.Create, SSHAdminKey: key.PublicKey(), RequestKey: key.PublicKey()})
	if err != nil {
		c.t.Error(err)
		return
	}
	c.do(ctx, m, Create, func() error {
		made, err := c.session.Create(ctx, file, &orchestrator.CreateChoices{Name: m.name})
		if err == nil {
			c.mu.Lock()
			m.uuid = made.Vcm.Uuid
			c.mu.Unlock()
		}
		return err
	})
}

func sign(m *made, r request.Request) ([]byte, error) {
	now := time.Now().UTC().Truncate(time.Second)
	r.ID, r.Created, r.NotBefore, r.Expires = uuid.NewString(), now, now.Add(-time.Minute), now.Add(time.Hour)
	return r.Sign(m.signer)
}

func (c *client) set(ctx context.Context, m *made, id string) {
	value := c.draw.IntN(2) == 0
	file, err := sign(m, request.Request{Kind: request.SetProperties, VCM: id, Properties: request.Properties{Autostart: &value}})
	if err != nil {
		c.t.Error(err)
		return
	}
	in := Input{VCM: m.name, Verb: SetProperty, Value: value}
	from := c.now()
	_, err = c.session.SetProperty(ctx, file, id, request.PropertyAutostart, fmt.Sprint(value))
	c.judge(in, m, from, err)
}

func (c *client) do(_ context.Context, m *made, verb Verb, call func() error) {
	from := c.now()
	c.judge(Input{VCM: m.name, Verb: verb}, m, from, call())
}

// judge notes what an answer means. A broken connection ends the session.
func (c *client) judge(in Input, m *made, from int64, err error) {
	out := Output{Outcome: outcome(in.Verb, err)}
	var said *failure.Failure
	if err != nil && !errors.As(err, &said) {
		c.hangUp()
	}
	c.note(c.id, in, from, out)
	if out.Outcome == Missing || in.Verb == Delete && out.Outcome == Done {
		c.mu.Lock()
		m.gone = true
		c.mu.Unlock()
	}
}

func outcome(verb Verb, err error) Outcome {
	var f *failure.Failure
	switch {
	case err == nil:
		return Done
	case !errors.As(err, &f):
		return Unknown
	}
	switch errkind.Parse(f.Kind) {
	case errkind.NotFound:
		return Missing
	case errkind.Limit:
		return Full
	case errkind.Mode:
		has := func(text string) bool { return strings.Contains(f.Message, text) }
		switch {
		case has("being deleted"):
			return Missing // for everybody but the one who deletes it
		case verb == Start && !has("already") && !has("wait until"):
			return Overtaken
		}
		return Refused
	}
	return Unknown
}

// list reads every VCM that was asked for before.
func (c *client) list(ctx context.Context) error {
	from := c.now()
	all, err := c.session.ListVcms(ctx, false)
	if err != nil {
		c.hangUp()
		return err
	}
	found, active := map[string]*orchestrator.Vcm{}, 0
	for _, v := range all {
		found[v.Properties.Name] = v
		if runs(v) {
			active++
		}
		if v.State == "failed" {
			c.t.Errorf("VCM %s failed: %s", v.Properties.Name, v.Reason)
		}
	}
	if active > maxActive {
		c.t.Errorf("%d VCMs are active, %d are licensed", active, maxActive)
	}
	c.mu.Lock()
	c.reads++
	asked := make([]*made, 0, len(c.made))
	for _, m := range c.made {
		if v := found[m.name]; v != nil && m.uuid == "" {
			m.uuid = v.Uuid // its create had no answer
		}
		// Of those that are gone now and then: they must not come back.
		if m.called < from && (!m.gone || c.draw == nil || c.draw.IntN(50) == 0) {
			asked = append(asked, m)
		}
	}
	c.mu.Unlock()
	for _, m := range asked {
		out := Output{Outcome: Missing}
		if v := found[m.name]; v != nil && v.State != "deleting" {
			out = Output{Outcome: Done, Active: runs(v), Value: v.Properties.Autostart}
		}
		c.note(c.id, Input{VCM: m.name, Verb: Read}, from, out)
	}
	return nil
}

func runs(v *orchestrator.Vcm) bool {
	return v.State == "starting" || v.State == "running" || v.State == "stopping"
}

func (c *client) busy(ctx context.Context) (string, error) {
	c.hangUp()
	var err error
	if c.session, err = c.direct.Dial(ctx); err != nil {
		c.session = nil
		return "", err
	}
	all, err := c.session.ListVcms(ctx, false)
	for _, v := range all {
		if !slices.Contains([]string{"created", "running", "stopped"}, v.State) {
			return fmt.Sprintf("%s is %s (%s)", v.Properties.Name, v.State, v.Reason), err
		}
	}
	return "", err
}
