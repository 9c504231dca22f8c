package prismtoken

import (
	"bytes"
	"context"
	"math"
	"reflect"
	"testing"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func memoryOf(p []byte) *thrift.TMemoryBuffer {
	return &thrift.TMemoryBuffer{Buffer: bytes.NewBuffer(bytes.Clone(p))}
}

// frameArgs are arguments with every type that the interface has.
func frameArgs() *prismtoken1.TokenApiIssueCreditTokenArgs {
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Ea, m.Sgc, m.Doe, m.AllowKrnUpdate = "60072700000", 11, 123456, "", true
	m.NewConfig_ = &prismtoken1.MeterConfigAmendment{ToSgc: -1, ToKrn: math.MinInt16, ToTi: 99}
	return &prismtoken1.TokenApiIssueCreditTokenArgs{
		MessageId: "m-1", AccessToken: string(make([]byte, 300)), MeterConfig: m, Subclass: 4, TransferAmount: math.Pi, TokenTime: math.MaxInt64, Flags: -5,
	}
}

// What the protocol writes is what the library writes.
func TestTheProtocolWritesWhatTheLibraryDoes(t *testing.T) {
	t.Parallel()
	for _, s := range []thrift.TStruct{
		frameArgs(),
		&prismtoken1.TokenApiIssueCreditTokenResult{Success: []*prismtoken1.Token{{Drn: "1", Tid: -7, TransferAmount: -0.5, IsReservedTid: true, NewConfig_: &prismtoken1.MeterConfigAdvice{ToKen: 255, Rollover: true}}, {}}},
		&prismtoken1.TokenApiGetStatusResult{Success: []*prismtoken1.NodeStatus{{Info: map[string]string{"a": ""}, Alerts: []*prismtoken1.Alert{}}}},
		&prismtoken1.TokenApiPingResult{Ex1: &prismtoken1.ApiException{ECode: "E", EMsgEn: "é"}},
	} {
		ours, theirs := memoryOf(nil), memoryOf(nil)
		if err := s.Write(t.Context(), newFrameProtocol(ours, nil)); err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), thrift.NewTBinaryProtocolConf(theirs, nil)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours.Bytes(), theirs.Bytes()) || ours.Len() == 0 {
			t.Errorf("%T:\n%x, the library writes\n%x", s, ours.Bytes(), theirs.Bytes())
		}
	}
}

// FuzzProtocol reads any octets as the library does: the same values, as many
// octets, and it refuses the same.
func FuzzProtocol(f *testing.F) {
	whole := memoryOf(nil)
	if err := frameArgs().Write(context.Background(), thrift.NewTBinaryProtocolConf(whole, nil)); err != nil {
		f.Fatal(err)
	}
	for n := range whole.Len() + 1 {
		f.Add(whole.Bytes()[:n])
	}
	f.Add([]byte{thrift.STRING, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF})
	f.Add([]byte{thrift.STRING, 0, 1, 0x7F, 0xFF, 0xFF, 0xFF, 'x'})
	f.Add([]byte{thrift.MAP, 0, 77, thrift.BOOL, thrift.DOUBLE, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		conf := &thrift.TConfiguration{MaxMessageSize: 1 << 16, MaxFrameSize: 1 << 16}
		if len(data) > 1<<16 {
			return // no frame is longer than its limit
		}
		ours, theirs := memoryOf(data), memoryOf(data)
		a, b := prismtoken1.NewTokenApiIssueCreditTokenArgs(), prismtoken1.NewTokenApiIssueCreditTokenArgs()
		errA := a.Read(t.Context(), newFrameProtocol(ours, conf))
		errB := b.Read(t.Context(), thrift.NewTBinaryProtocolConf(theirs, conf))
		if (errA == nil) != (errB == nil) { // of a field cut short, the library's text has no certain number
			t.Fatalf("error %v, the library's is %v", errA, errB)
		}
		if errA != nil {
			return
		}
		if math.IsNaN(a.TransferAmount) && math.IsNaN(b.TransferAmount) {
			a.TransferAmount, b.TransferAmount = 0, 0
		}
		if !reflect.DeepEqual(a, b) || ours.Len() != theirs.Len() {
			t.Fatalf("%v with %d left, the library reads %v with %d left", a, ours.Len(), b, theirs.Len())
		}
	})
}
