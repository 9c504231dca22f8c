package fakeunit

import (
	"context"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// ShowKeys lists the services in the order in which they were started.
func (s *services) ShowKeys(context.Context) ([]*sshadmin.ServiceKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list(), nil
}

func (s *services) list() []*sshadmin.ServiceKey {
	var out []*sshadmin.ServiceKey
	for _, name := range s.order {
		e := s.keys[name]
		k := &sshadmin.ServiceKey{ServiceName: name, Address: e.address, HostKey: e.hostKey, Installed: e.installed}
		if key, ok := e.authorised.Get(); ok {
			k.ClientKey = request.KeyText(key)
		}
		out = append(out, k)
	}
	return out
}

// InstallKeys is all or nothing.
func (s *services) InstallKeys(_ context.Context, keys []*sshadmin.ClientKey) ([]*sshadmin.ServiceKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if s.keys[k.ServiceName] == nil {
			return nil, errkind.Errorf(errkind.NotFound, "there is no service %s", k.ServiceName)
		}
		if _, err := request.ParseKey(k.ClientKey); err != nil {
			return nil, err
		}
	}
	for _, k := range keys {
		key, err := request.ParseKey(k.ClientKey)
		if err != nil {
			return nil, err
		}
		s.keys[k.ServiceName].authorised.Set(key)
		s.keys[k.ServiceName].installed = time.Now().Unix()
	}
	return s.list(), nil
}
