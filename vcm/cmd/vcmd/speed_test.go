package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Tills that want more than the rating get the rating, at both services that
// vend, and wait for it instead of being refused.
func TestTheSpeedRatingIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const rate = 40
	r.speed = hsmapi.Speed{Guaranteed: rate, Ceiling: rate, Unit: rate}
	p := r.launch()
	p.mustBeReady()
	r.equip()
	var issued atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var tills sync.WaitGroup
	for w := range 4 {
		tills.Go(func() {
			c := &till{r: r}
			defer c.hangUp()
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := c.vend(ctx, fmt.Sprintf("%d-%d", w, i), drn(1+w)); err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				issued.Add(1)
			}
		})
	}
	began, before := time.Now(), issued.Load()
	time.Sleep(2 * time.Second)
	got := float64(issued.Load()-before) / time.Since(began).Seconds()
	cancel()
	tills.Wait()
	// Up to a quarter of a second may be saved up.
	if high := rate*1.25 + 5; got < rate/2 || got > high {
		t.Errorf("%.0f tokens a second, the rating is %d", got, rate)
	}
	p.stop(vcmcontrol.Stop{Force: true, Drain: 1000})
}

// A VCM that is rated for next to nothing says so, in the way of each service.
func TestAUsedUpRatingIsSaid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.speed = hsmapi.Speed{Guaranteed: 1, Ceiling: 1, Unit: 1}
	p := r.launch()
	p.mustBeReady()
	r.equip()
	var said [2]atomic.Int64
	var tills sync.WaitGroup
	for w := range 12 {
		tills.Go(func() {
			c := &till{r: r}
			defer c.hangUp()
			_, err := c.vend(t.Context(), fmt.Sprint(w), drn(1+w))
			var e *prismtoken1.ApiException
			if errors.As(err, &e) && e.ECode == "ESm" && strings.Contains(e.EMsgEn, "'35'") {
				said[0].Add(1)
			}
		})
		tills.Go(func() {
			c, err := net.Dial("tcp", r.address(vcmcontrol.ServiceSMAPI))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			line := fmt.Sprintf("SM?VCN1~P0000%s~N1~N11~N2~N0~H0001~H%06X~", drn(100+w), time.Now().Unix()/60%(1<<24))
			line += fmt.Sprintf("%04X\r", keyload.CRC16([]byte(line)))
			frame := append(binary.BigEndian.AppendUint16(nil, uint16(6+len(line))), "prefix"+line...)
			_, err = c.Write(frame)
			answer, readErr := bufio.NewReader(c).ReadString('\r')
			if err != nil || readErr != nil {
				t.Error(err, readErr)
			}
			if strings.Contains(answer, "SM!VC35") {
				said[1].Add(1)
			}
		})
	}
	tills.Wait()
	if said[0].Load() == 0 || said[1].Load() == 0 {
		t.Errorf("%d of 12 tills and %d of 12 sockets were told so", said[0].Load(), said[1].Load())
	}
	p.stop(vcmcontrol.Stop{Force: true, Drain: 1000})
}
