package vending

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Load is a number of clients that issue credit tokens at once, each on its own
// connection.
type Load struct {
	Server         Config
	User, Password string
	Meters         []*prismtoken1.MeterConfigIn
	Subclass       int16
	Amount         float64

	Clients int
	// OneSession: the clients share one access token, as the tills of one system may.
	OneSession bool
	// Calls and Duration bound the run; zero is no bound, but one must be set.
	Calls    int
	Duration time.Duration
	// Recover is how long a client without a connection tries to get one; if a
	// call was outstanding it then fetches the lost answer. Zero ends the client.
	Recover time.Duration
	// Settle is how long a call may still run at the server after its connection
	// broke: a result that is missing until then never comes. Zero means half a second.
	Settle time.Duration
	// Record gets every call's outcome, one at a time, from the goroutine of its
	// client. An error ends the run.
	Record func(Call) error
}

// Call is one issueCreditToken and what became of it.
type Call struct {
	Client    int       `json:"client"`
	MessageID string    `json:"messageId"`
	DRN       string    `json:"drn"`
	Start     time.Time `json:"start"`
	// Micros is the time from request to answer; 0 for a fetched answer.
	Micros int64 `json:"micros"`
	// Fetched: the answer was lost and fetched later.
	Fetched bool                 `json:"fetched,omitempty"`
	Tokens  []*prismtoken1.Token `json:"tokens,omitempty"`
	// Code is the eCode of a refusal; "lost" is an answer nobody can tell about.
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// Lost is the Code of a call whose answer was lost and could not be fetched: the
// server was not back in time. "ECacheMiss" is one that never happened.
const Lost = "lost"

// Report sums up a run.
type Report struct {
	Clients int `json:"clients"`
	Calls   int `json:"calls"`
	Tokens  int `json:"tokens"`
	Errors  int `json:"errors"`
	// Codes counts the errors by their code.
	Codes     map[string]int `json:"codes,omitempty"`
	Fetched   int            `json:"fetched"`
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"tokensPerSecond"`
	P50Millis float64        `json:"p50Millis"`
	P99Millis float64        `json:"p99Millis"`
}

// run is the shared state of one Load.Run.
type run struct {
	Load
	end time.Time

	session sync.Mutex // held while somebody signs in for all
	token   string     // of OneSession

	mu      sync.Mutex
	started int
	report  Report
	micros  []int64
}

// Run issues until a bound is reached or ctx ends, and waits for every client.
// The report is valid also with an error.
func (l Load) Run(ctx context.Context) (Report, error) {
	switch {
	case len(l.Meters) == 0:
		return Report{}, errkind.Errorf(errkind.Invalid, "load: no meter to vend to")
	case l.Clients < 1 || l.Clients > 4096:
		return Report{}, errkind.Errorf(errkind.Invalid, "load: %d clients are outside 1 to 4096", l.Clients)
	case l.Calls <= 0 && l.Duration <= 0:
		return Report{}, errkind.Errorf(errkind.Invalid, "load: neither a number of calls nor a duration bounds the run")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	r := &run{Load: l}
	if r.Settle == 0 {
		r.Settle = 500 * time.Millisecond
	}
	if l.Duration > 0 {
		r.end = start.Add(l.Duration)
	}
	errs := make([]error, l.Clients)
	var clients sync.WaitGroup
	for i := range l.Clients {
		clients.Go(func() {
			if errs[i] = r.client(ctx, i); errs[i] != nil {
				cancel()
			}
		})
	}
	clients.Wait()
	r.report.Clients, r.report.Seconds = l.Clients, time.Since(start).Seconds()
	r.report.PerSecond = float64(r.report.Tokens) / r.report.Seconds
	slices.Sort(r.micros)
	r.report.P50Millis, r.report.P99Millis = percentile(r.micros, 50), percentile(r.micros, 99)
	return r.report, first(errs)
}

// first prefers the error that ended the run to those of the clients it cancelled.
func first(errs []error) error {
	var cause error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if cause == nil || errkind.Is(cause, errkind.Unavailable) && !errkind.Is(err, errkind.Unavailable) {
			cause = err
		}
	}
	return cause
}

func percentile(sorted []int64, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, len(sorted)*p/100)]) / 1000
}

// next claims a call; false when the run is over.
func (r *run) next(ctx context.Context) (number int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil || r.Calls > 0 && r.started >= r.Calls || !r.end.IsZero() && !time.Now().Before(r.end) {
		return 0, false
	}
	r.started++
	return r.started - 1, true
}

func (r *run) client(ctx context.Context, id int) error {
	c, err := r.connect(ctx, r.Recover)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for {
		n, ok := r.next(ctx)
		if !ok {
			return nil
		}
		call := Call{Client: id, MessageID: MessageID(), DRN: r.Meters[n%len(r.Meters)].Drn, Start: time.Now()}
		call.Tokens, err = r.issue(ctx, c, call.MessageID, r.Meters[n%len(r.Meters)])
		call.Micros = time.Since(call.Start).Microseconds()
		if err != nil && errkind.Is(err, errkind.Unavailable) && ctx.Err() == nil && r.Recover > 0 {
			_ = c.Close()
			c, err = r.recover(ctx, c, &call)
			if err != nil {
				return err
			}
		} else if err != nil {
			call.Code, call.Error = ErrorCode(err), err.Error()
			if call.Code == "" {
				call.Code = Lost
			}
		}
		if e := r.record(call); e != nil {
			return e
		}
		if call.Code == Lost && ctx.Err() == nil {
			return err
		}
	}
}

// issue makes the call; an access token that has died is replaced once.
func (r *run) issue(ctx context.Context, c *Client, message string, m *prismtoken1.MeterConfigIn) ([]*prismtoken1.Token, error) {
	for again := true; ; again = false {
		tokens, err := c.API.IssueCreditToken(ctx, message, c.Token, m, r.Subclass, r.Amount, 0, 0)
		if err == nil {
			return tokens, nil
		}
		err = Error("issue credit token (message "+message+")", err)
		if !again || ErrorCode(err) != "EAuthentication.Token" {
			return nil, err
		}
		if err := r.signIn(ctx, c, c.Token); err != nil {
			return nil, err
		}
	}
}

// signIn gives the client another access token than the stale one.
func (r *run) signIn(ctx context.Context, c *Client, stale string) error {
	if !r.OneSession {
		return c.SignIn(ctx, r.User, r.Password)
	}
	r.session.Lock()
	defer r.session.Unlock()
	if r.token == stale {
		if err := c.SignIn(ctx, r.User, r.Password); err != nil {
			return err
		}
		r.token = c.Token
	}
	c.Token = r.token
	return nil
}

// recover comes back after a broken connection and learns what became of call.
// It returns the connection to go on with, broken itself if the server stayed away.
func (r *run) recover(ctx context.Context, broken *Client, call *Call) (*Client, error) {
	deadline, settled := time.Now().Add(r.Recover), time.Now().Add(r.Settle)
	call.Micros = 0
	for {
		c, err := r.connect(ctx, time.Until(deadline))
		if err != nil {
			call.Code, call.Error = Lost, err.Error()
			return broken, errors.Join(err, r.record(*call))
		}
		tokens, err := r.fetch(ctx, c, call.MessageID)
		if ErrorCode(err) == "ECacheMiss" && time.Now().Before(settled) {
			if err := pause(ctx, time.Until(settled)); err != nil {
				return c, err
			}
			tokens, err = r.fetch(ctx, c, call.MessageID)
		}
		switch code := ErrorCode(err); {
		case err == nil:
			call.Tokens, call.Fetched = tokens, true
			return c, nil
		case code != "":
			call.Code, call.Error = code, err.Error()
			return c, nil
		}
		_ = c.Close()
		broken = c
	}
}

// fetch asks for an earlier result; an access token that has died is replaced once.
func (r *run) fetch(ctx context.Context, c *Client, message string) ([]*prismtoken1.Token, error) {
	for again := true; ; again = false {
		tokens, err := c.API.FetchTokenResult_(ctx, MessageID(), c.Token, message)
		if err = Error("fetch the result of "+message, err); !again || ErrorCode(err) != "EAuthentication.Token" {
			return tokens, err
		}
		if err := r.signIn(ctx, c, c.Token); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errkind.Errorf(errkind.Unavailable, "interrupted: %w", ctx.Err())
	case <-time.After(d):
		return nil
	}
}

// connect dials and signs in, trying again for as long as patience lasts.
func (r *run) connect(ctx context.Context, patience time.Duration) (*Client, error) {
	deadline := time.Now().Add(patience)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		c, err := Dial(ctx, r.Server)
		if err == nil {
			if err = r.signIn(ctx, c, ""); err == nil {
				return c, nil
			}
			_ = c.Close()
		}
		if !errkind.Is(err, errkind.Unavailable) || time.Now().Add(wait).After(deadline) {
			return nil, err
		}
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (r *run) record(c Call) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Calls++
	r.report.Tokens += len(c.Tokens)
	switch {
	case c.Fetched:
		r.report.Fetched++
	case c.Code != "":
		r.report.Errors++
		if r.report.Codes == nil {
			r.report.Codes = map[string]int{}
		}
		r.report.Codes[c.Code]++
	default:
		r.micros = append(r.micros, c.Micros)
	}
	if r.Record == nil {
		return nil
	}
	if err := r.Record(c); err != nil {
		return fmt.Errorf("record a call: %w", err)
	}
	return nil
}
