package fakeunit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

// VCM is one VCM of a fake unit: sshadmin, monitor and prismtoken.
type VCM struct {
	unit     *Unit
	wire     *orchestrator.Vcm
	file     []byte
	shareKey string
	services services
	serving  []thrift.TProcessor
	names    []string
	stop     func()
}

func newVCM(u *Unit, id string, r *request.Request, p *orchestrator.Properties) *VCM {
	now := time.Now().UTC().Truncate(time.Second)
	v := &VCM{
		unit: u, shareKey: r.ShareKey, stop: func() {}, names: []string{"sshadmin", "monitor", "prismtoken"},
		services: services{unit: u, uuid: id, keys: map[string]*entry{}},
		wire:     &orchestrator.Vcm{Uuid: id, Esn: u.ESN, State: "created", Properties: p, Created: now.Unix(), Changed: now.Unix(), ModuleId: "00000101"},
	}
	v.serving = []thrift.TProcessor{
		sshadmin.NewSshAdminProcessor(&v.services), monitor.NewMonitorProcessor(newMonitor(u.t, u, id)),
		prismadmin.NewPrismAdminProcessor(newTokenService()),
	}
	for _, name := range v.names {
		address := ownAddress(u)
		v.wire.Endpoints = append(v.wire.Endpoints, &orchestrator.Endpoint{ServiceName: name, Address: address})
		v.services.keys[name] = &entry{address: address}
		v.services.order = append(v.services.order, name)
	}
	v.services.keys["sshadmin"].authorised.Set(r.SSHAdminKey)
	v.file = v.vcmFile(r.ID, now)
	return v
}

// ownAddress is one that the VCM can listen on as often as it starts, and nobody
// else meanwhile: a socket is bound to it that does not listen.
func ownAddress(u *Unit) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		u.t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		u.t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		u.t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

func (v *VCM) vcmFile(requestID string, now time.Time) []byte {
	p := v.wire.Properties
	features := licensing.Features(p.Features)
	f := vcmfile.File{
		UUID: v.wire.Uuid, ESN: v.unit.ESN, ModuleID: v.wire.ModuleId, RequestID: requestID, Created: now, Address: "127.0.0.1",
		Properties: request.Properties{
			Name: &p.Name, Autostart: &p.Autostart, RestrictStartup: &p.RestrictStartup, SerialCardreader: &p.SerialCardreader, Features: &features,
		},
		UnitKey: request.KeyText(v.unit.Key.PublicKey()), Warrant: string(v.unit.Warrant),
	}
	for _, e := range v.wire.Endpoints {
		f.Endpoints = append(f.Endpoints, vcmfile.Endpoint{Service: e.ServiceName, Address: e.Address})
	}
	message, err := f.Marshal()
	if err != nil {
		v.unit.t.Fatal(err)
	}
	file, err := armor.Sign(message, v.unit.Key, vcmfile.Namespace)
	if err != nil {
		v.unit.t.Fatal(err)
	}
	return file
}

// start serves until stop or the end of the test.
func (v *VCM) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var ended []chan error
	for i, name := range v.names {
		v.services.startAt(name, v.serving[i], v.services.keys[name].address, func(cfg sshrpc.ServerConfig, l net.Listener) {
			cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
			end := make(chan error, 1)
			ended = append(ended, end)
			go func() { end <- sshrpc.Serve(ctx, l, cfg) }()
		})
	}
	v.stop = func() {
		cancel()
		for _, end := range ended {
			<-end
		}
		ended = nil
		v.wire.State = "stopped"
	}
	v.unit.t.Cleanup(cancel)
	v.wire.State, v.wire.IsolationLevel = "running", "landlock"
	v.wire.Isolation = []*orchestrator.IsolationControl{
		{Control: "network", Wanted: "no socket", Got: "no socket", Proof: "socket(2): EPERM"},
		{Control: "cgroup", Wanted: "v2", Got: "none", Reason: "not writable", Proof: "open: EACCES"},
	}
}

func (v *VCM) verify(file []byte, kind request.Kind) (*request.Request, error) {
	r, err := request.Parse(file)
	if err != nil {
		return nil, err
	}
	if r.Kind != kind {
		return nil, errkind.Errorf(errkind.Refused, "this is a %s request", r.Kind)
	}
	key, err := request.ParseKey(v.wire.Properties.TenantRequestKey)
	if err != nil {
		return nil, err
	}
	return r, r.Verify(key, v.wire.Uuid, time.Now())
}

// admitStart opens the tenant's share as the unit would.
func (v *VCM) admitStart(file []byte) error {
	if len(file) == 0 {
		return errkind.Errorf(errkind.Refused, "VCM %s has restrict-startup: a start request of its tenant is needed", v.wire.Uuid)
	}
	r, err := v.verify(file, request.Start)
	if err != nil {
		return err
	}
	secret, err := tenantshare.Open(v.unit.Share, r.Share, v.unit.ESN, v.wire.Uuid, time.Now())
	if err != nil {
		return err
	}
	key, err := secret.PublicKey()
	if err != nil {
		return err
	}
	if key != v.shareKey {
		return errkind.Errorf(errkind.Integrity, "the share in the request is not this VCM's")
	}
	return nil
}

func (v *VCM) setProperty(file []byte, property, value string) error {
	r, err := v.verify(file, request.SetProperties)
	if err != nil {
		return err
	}
	wanted, ok := r.Properties.Value(property)
	if !ok || wanted != value {
		return errkind.Errorf(errkind.Refused, "Invalid property value: %s mismatch", property)
	}
	p := v.wire.Properties
	switch property {
	case request.PropertyName:
		p.Name = value
	case request.PropertyAutostart:
		p.Autostart = value == "true"
	case request.PropertyRequestKey:
		p.TenantRequestKey = value
	case request.PropertyRestrictStartup:
		p.RestrictStartup = value == "true"
		v.shareKey = r.ShareKey
	}
	return nil
}
