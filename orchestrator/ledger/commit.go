package ledger

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// request is one caller's part of a commit.
type request struct {
	fn   func(Tx) error
	done chan struct{}
	err  error // valid after done
}

// share commits fn with whatever else waits. Who comes while nobody commits does
// so at once; who comes meanwhile shares the next commit.
func (l *Ledger) share(fn func(Tx) error) error {
	r := &request{fn: fn, done: make(chan struct{})}
	l.mu.Lock()
	l.queue = append(l.queue, r)
	l.mu.Unlock()
	select {
	case l.commit <- struct{}{}:
		l.mu.Lock()
		all := l.queue
		l.queue = nil
		l.mu.Unlock()
		l.commitAll(all) // without r if another took it along
		<-l.commit
		<-r.done
	case <-r.done:
	}
	return r.err
}

// commitAll makes all requests durable that do not fail. One that fails leaves
// nothing behind: the others are run again without it.
func (l *Ledger) commitAll(all []*request) {
	for len(all) > 0 {
		failed := -1
		err := l.db.Update(func(tx *bolt.Tx) error {
			for i, r := range all {
				if r.err = r.run(Tx{tx}); r.err != nil {
					failed = i
					return r.err
				}
			}
			return nil
		})
		if failed >= 0 {
			close(all[failed].done)
			all = append(all[:failed:failed], all[failed+1:]...)
			continue
		}
		for _, r := range all {
			r.err = err
			close(r.done)
		}
		return
	}
}

// run is fn, for whose panic its caller is to blame and not who commits.
func (r *request) run(tx Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("ledger: %v", p)
		}
	}()
	return r.fn(tx)
}
