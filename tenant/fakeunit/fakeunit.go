// Package fakeunit is a unit for tests of command-line tools: real SSH services
// with real host certificates on loopback, and behind them the smallest
// platform and VCMs that honour the interfaces.
package fakeunit

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// Unit is a unit in factory state with its platform services running.
type Unit struct {
	t       testing.TB
	ESN     string
	Dir     string // holds unit.json, maker-root.pub and factory.key
	Root    ssh.Signer
	Key     ssh.Signer
	Share   *ecdh.PrivateKey // opens what tenants seal to the unit
	Warrant []byte

	mu       sync.Mutex
	vcms     map[string]*VCM
	services services
	network  *setup.Network
	licences []string
	resets   int
	// restarting: the next call finds that the platform starts over, as a reset
	// breaks connections.
	restarting bool
}

// MakerRoot makes a maker's root key and writes its public half to dir.
func MakerRoot(t testing.TB, dir string) ssh.Signer {
	t.Helper()
	root := sshrpctest.Key(t)
	write(t, filepath.Join(dir, "maker-root.pub"), ssh.MarshalAuthorizedKey(root.PublicKey()))
	return root
}

// New starts a unit whose files are in dir, vouched for by root.
func New(t testing.TB, dir, esn string, root ssh.Signer) *Unit {
	t.Helper()
	share, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u := &Unit{t: t, ESN: esn, Dir: dir, Root: root, Key: sshrpctest.Key(t), Share: share, vcms: map[string]*VCM{}}
	u.Warrant = u.warrant()
	u.services = services{unit: u, keys: map[string]*entry{}}
	u.services.start("sshadmin", sshadmin.NewSshAdminProcessor(&u.services))
	u.services.start("orchestrator", orchestrator.NewOrchestratorProcessor(&hosting{u}))
	u.services.start("setup", setup.NewSetupProcessor(&platform{u}))
	u.services.start("monitor", monitor.NewMonitorProcessor(newMonitor(t, u, "")))
	u.writeUnitFile(u.factoryKey())
	return u
}

// UnitFile is the path of unit.json.
func (u *Unit) UnitFile() string { return filepath.Join(u.Dir, unitfile.Name) }

func (u *Unit) warrant() []byte {
	u.t.Helper()
	transaction, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		u.t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(&transaction.PublicKey)
	if err != nil {
		u.t.Fatal(err)
	}
	file, err := warrant.Sign(warrant.Warrant{
		Unit: warrant.Unit{
			ESN: u.ESN, ModuleID: "00000100", FirmwareID: "STS64V01", HardwareID: "TSM500E1",
			UnitKey: request.KeyText(u.Key.PublicKey()), EncryptionKey: base64.StdEncoding.EncodeToString(u.Share.PublicKey().Bytes()),
		},
		Features: licensing.HSMSpeed0 | licensing.STSVending | licensing.STSEA11, TransactionKey: request.KeyText(key),
		Issued: time.Now().UTC().Truncate(time.Second),
	}, u.Root)
	if err != nil {
		u.t.Fatal(err)
	}
	return file
}

func (u *Unit) factoryKey() string {
	u.t.Helper()
	key := sshrpctest.Ed25519(u.t)
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		u.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "factory")
	if err != nil {
		u.t.Fatal(err)
	}
	u.services.keys["sshadmin"].authorised.Set(signer.PublicKey())
	path := filepath.Join(u.Dir, "factory.key")
	write(u.t, path, pem.EncodeToMemory(block))
	return path
}

func (u *Unit) writeUnitFile(factoryKey string) {
	u.t.Helper()
	file := unitfile.Unit{
		ESN: u.ESN, ModuleID: "00000100", UnitKey: request.KeyText(u.Key.PublicKey()), Warrant: string(u.Warrant),
		FactoryKey: factoryKey, Written: time.Now().UTC(),
	}
	for _, name := range u.services.order {
		file.Services = append(file.Services, unitfile.Service{Name: name, Address: u.services.keys[name].address})
	}
	if err := unitfile.Write(u.UnitFile(), file); err != nil {
		u.t.Fatal(err)
	}
}

// services is a set of SSH services and their sshadmin.
type services struct {
	unit  *Unit
	uuid  string // of the VCM; empty: the platform
	mu    sync.Mutex
	order []string
	keys  map[string]*entry
}

type entry struct {
	address    string
	hostKey    string
	authorised sshrpctest.Authorised
	installed  int64
}

func (s *services) start(name string, p thrift.TProcessor) {
	s.startAt(name, p, "127.0.0.1:0", func(cfg sshrpc.ServerConfig, l net.Listener) { sshrpctest.ServeListener(s.unit.t, l, cfg) })
}

func (s *services) startAt(name string, p thrift.TProcessor, address string, serve func(sshrpc.ServerConfig, net.Listener)) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		s.unit.t.Fatal(err)
	}
	host := sshrpctest.HostKey(s.unit.t, s.unit.Key, hsmapi.Principal(s.unit.ESN, s.uuid, name))
	s.mu.Lock()
	e := s.keys[name]
	if e == nil {
		e = &entry{}
		s.keys[name] = e
		s.order = append(s.order, name)
	}
	e.address, e.hostKey = l.Addr().String(), request.KeyText(host.PublicKey())
	s.mu.Unlock()
	serve(sshrpc.ServerConfig{Service: name, HostKey: host, Authorised: e.authorised.Get, Processor: sshrpctest.Processor(p)}, l)
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
