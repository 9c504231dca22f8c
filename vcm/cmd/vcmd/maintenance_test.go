package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// In maintenance mode no service issues a token, also after a kill, and the
// provider may stop the VCM without force.
func TestMaintenanceMode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.launch()
	p.mustBeReady()
	r.equip()
	admin := func() *prismadmin.PrismAdminClient {
		return prismadmin.NewPrismAdminClient(r.mustDial(vcmcontrol.ServicePrismToken, r.keys[vcmcontrol.ServicePrismToken]).Thrift())
	}
	operational := func() bool {
		t.Helper()
		var m vcmcontrol.Mode
		if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodMode, nil, &m); err != nil {
			t.Fatal(err)
		}
		return m.Operational
	}
	if _, err := (&till{r: r}).vend(t.Context(), "before", drn(1)); err != nil || !operational() {
		t.Fatalf("before: %v, operational %v", err, operational())
	}
	if _, err := admin().MaintenanceSet(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	r.refusesToIssue(admin(), "first")
	p.kill()
	p = r.launch()
	p.mustBeReady()
	if operational() {
		t.Error("operational in maintenance mode")
	}
	r.refusesToIssue(admin(), "second")

	if _, err := admin().MaintenanceSet(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := (&till{r: r}).vend(t.Context(), "after", drn(1)); err != nil || !operational() {
		t.Errorf("after: %v, operational %v", err, operational())
	}
	if answer := r.command(drn(5)); !strings.Contains(answer, "SM!VC") || strings.Contains(answer, "SM!VC35") {
		t.Errorf("SM API after: %q", answer)
	}
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStop, vcmcontrol.Stop{Drain: 1000}, nil); !errkind.Is(err, errkind.Mode) {
		t.Errorf("stop without force: %v", err)
	}
	if _, err := admin().MaintenanceSet(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	p.stop(vcmcontrol.Stop{Drain: 1000})
}

// refusesToIssue asks for a token in every way.
func (r *rig) refusesToIssue(admin *prismadmin.PrismAdminClient, id string) {
	t := r.t
	t.Helper()
	_, err := (&till{r: r}).vend(t.Context(), id, drn(1))
	var e *prismtoken1.ApiException
	if !errors.As(err, &e) || e.ECode != "EService.Disabled" || !strings.Contains(e.EMsgEn, "maintenance mode") {
		t.Errorf("token service: %v", err)
	}
	_, err = admin.TokenCredit(t.Context(), &prismadmin.TokenRequest{MessageId: id, Amount: 102,
		Meter: &prismadmin.Meter{Drn: drn(1), Ea: 11, Tct: 2, Sgc: testSGC, Krn: 1, Ti: 1, Ken: 255, Doe: "0000"}})
	if err := sshrpc.FromFailure(err); !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), "maintenance mode") {
		t.Errorf("ptokenadmin: %v", err)
	}
	if answer := r.command(drn(5)); !strings.Contains(answer, "SM!VC35") {
		t.Errorf("SM API: %q", answer)
	}
}

// command has the SM API vend to a meter and returns the answer.
func (r *rig) command(drn string) string {
	t := r.t
	t.Helper()
	c, err := net.Dial("tcp", r.address(vcmcontrol.ServiceSMAPI))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	line := fmt.Sprintf("SM?VCN1~P0000%s~N1~N11~N2~N0~H0001~H%06X~", drn, time.Now().Unix()/60%(1<<24))
	line += fmt.Sprintf("%04X\r", keyload.CRC16([]byte(line)))
	frame := append(binary.BigEndian.AppendUint16(nil, uint16(6+len(line))), "prefix"+line...)
	if _, err = c.Write(frame); err != nil {
		t.Fatal(err)
	}
	answer, err := bufio.NewReader(c).ReadString('\r')
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
