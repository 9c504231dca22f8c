package ledger

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// Run is what one run of the orchestrator leaves for the next.
type Run struct {
	// Owner names this state folder in claims; made once.
	Owner string `json:"owner"`
	// Boot is the host's boot id.
	Boot string `json:"boot"`
	// Serving is true from the start until everything was stopped in good order.
	Serving bool `json:"serving"`
	// Ports are those of the platform's services, kept so that enrolled
	// clients find them again.
	Ports map[string]string `json:"ports"`
}

// Run returns what the last run left.
func (t Tx) Run() (r Run, err error) {
	_, err = t.bucket(settingsBucket).getJSON("run", &r)
	return r, err
}

// SetRun stores r.
func (t Tx) SetRun(r Run) error { return t.bucket(settingsBucket).putJSON("run", r) }

// Networks are the network in effect and the one that a reset puts into effect.
type Networks struct {
	Current network.Settings  `json:"current"`
	Next    *network.Settings `json:"next,omitempty"`
}

// Networks returns the stored settings.
func (t Tx) Networks() (n Networks, err error) {
	_, err = t.bucket(settingsBucket).getJSON("network", &n)
	return n, err
}

// SetNetworks stores n.
func (t Tx) SetNetworks(n Networks) error { return t.bucket(settingsBucket).putJSON("network", n) }

// Client is the key that may use a service.
type Client struct {
	Key       string    `json:"key"` // authorized_keys form
	Installed time.Time `json:"installed"`
}

// Clients returns the client key of each service that has one.
func (t Tx) Clients() (map[string]Client, error) {
	out := map[string]Client{}
	b := t.bucket(clientBucket)
	err := b.Range(nil, func(k, _ []byte) error {
		var c Client
		_, err := b.getJSON(string(k), &c)
		out[string(k)] = c
		return err
	})
	return out, err
}

// SetClient stores the client key of a service.
func (t Tx) SetClient(service string, c Client) error {
	return t.bucket(clientBucket).putJSON(service, c)
}

// Licences returns the licence files in the order in which they were applied.
func (t Tx) Licences() ([][]byte, error) {
	var out [][]byte
	err := t.bucket(licenceBucket).Range(nil, func(_, v []byte) error {
		out = append(out, append([]byte(nil), v...))
		return nil
	})
	return out, err
}

// AddLicence stores a licence file after all others; one that is there already
// moves behind them.
func (t Tx) AddLicence(file []byte) error {
	b := t.bucket(licenceBucket).b
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if !bytes.Equal(v, file) {
			continue
		}
		if err := c.Delete(); err != nil {
			return err
		}
		break
	}
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	return b.Put(binary.BigEndian.AppendUint64(nil, seq), file)
}

// Forget drops what the provider set: client keys, licences and network. The
// audit log, the name of the state folder and the ports stay, so that the unit
// is found where it was.
func (t Tx) Forget() error {
	for _, name := range []string{clientBucket, licenceBucket} {
		if err := t.tx.DeleteBucket([]byte(name)); err != nil {
			return err
		}
		if _, err := t.tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return t.SetNetworks(Networks{})
}
