package pos

import (
	"context"

	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// step is an issuing call's one transaction. It is used again, functions and
// all: every vend makes one.
type step struct {
	s *Service
	stepInput
	out []Token

	vend func(*store.Tx) ([]Token, error) // makes the tokens of request
	run  func(*store.Tx) error
}

// stepInput is what differs from one use to the next.
type stepInput struct {
	caller    Caller
	messageID string
	request   request // for vend
	make      func(*store.Tx) ([]Token, error)
}

// step returns one whose commit is to be called.
func (s *Service) step() *step {
	if st, ok := s.steps.Get().(*step); ok {
		return st
	}
	st := &step{s: s}
	st.vend = func(tx *store.Tx) ([]Token, error) { return s.vend(tx, &st.request) }
	st.run = st.inTransaction
	return st
}

// commit runs make in a transaction, keeps its result in the same one, and
// returns it once that is durable. The step is not the caller's any more.
func (st *step) commit(ctx context.Context, c Caller, messageID string, make func(*store.Tx) ([]Token, error)) ([]Token, error) {
	s := st.s
	st.caller, st.messageID, st.make = c, messageID, make
	err := s.store.Update(ctx, st.run)
	out := st.out
	st.stepInput, st.out = stepInput{}, nil
	s.steps.Put(st)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return out, nil
}

func (st *step) inTransaction(tx *store.Tx) error {
	tokens, err := st.make(tx)
	if err != nil {
		return err
	}
	st.out = tokens
	return st.s.keepResult(tx, st.caller, st.messageID, tokens)
}
