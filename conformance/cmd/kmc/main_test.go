package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kmc": main, "module": module})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true})
}

// moduleState is a module of three files, so that scripts can see both sides of
// the key agreement.
type moduleState struct {
	Static, Ephemeral []byte
	Request           string
}

// module is the command "module new PUBFILE", "module request KMCPUB OUT" and
// "module open KMCPUB KLF", which prints the keys it can unwrap.
func module() {
	if err := runModule(os.Args[1:]); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

const stateFile = "module.json"

func runModule(args []string) error {
	var st moduleState
	if args[0] == "new" {
		static, err := keyload.NewPrivateKey(rand.Reader)
		if err != nil {
			return err
		}
		st.Static = static.Bytes()
		pub := keyload.SMPublicKey{ModuleID: args[2], SPN: 1, HardwareID: "TSM500I", FirmwareID: "STS64V10",
			Curve: keyload.CurveName, Point: static.PublicKey().Bytes()}
		if err := os.WriteFile(args[1], []byte(pub.Text()), 0o600); err != nil {
			return err
		}
		return st.save()
	}
	raw, err := os.ReadFile(stateFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return err
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	kmcKey, err := keyload.ParseKMCPublicKeyText(string(text))
	if err != nil {
		return err
	}
	if args[0] == "request" {
		return st.request(kmcKey, args[2], args[3])
	}
	file, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	return st.open(kmcKey, string(file))
}

func (st *moduleState) save() error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return os.WriteFile(stateFile, raw, 0o600)
}

func (st *moduleState) request(k keyload.KMCPublicKey, id, out string) error {
	ephem, err := keyload.NewPrivateKey(rand.Reader)
	if err != nil {
		return err
	}
	st.Ephemeral = ephem.Bytes()
	st.Request = keyload.Request{ModuleID: id, SPN: 1, KMC: k.KMC, KPN: k.KPN, TVP: time.Now().UTC().Format(keyload.DateTime),
		HardwareID: "TSM500I", FirmwareID: "STS64V10", QEU: ephem.PublicKey().Bytes()}.Text()
	if err := os.WriteFile(out, []byte("Dear KMC,\r\n"+keyload.Armor(keyload.BlockRequest, st.Request)+"regards\r\n"), 0o600); err != nil {
		return err
	}
	return st.save()
}

func (st *moduleState) open(k keyload.KMCPublicKey, text string) error {
	file, err := keyload.ParseKLF(text)
	if err != nil {
		return err
	}
	response, err := keyload.ParseResponse(file.Response)
	if err != nil {
		return err
	}
	request, err := keyload.ParseRequestText(st.Request)
	if err != nil {
		return err
	}
	static, err := ecdh.P384().NewPrivateKey(st.Static)
	if err != nil {
		return err
	}
	ephem, err := ecdh.P384().NewPrivateKey(st.Ephemeral)
	if err != nil {
		return err
	}
	peer, err := k.Key()
	if err != nil {
		return err
	}
	qev, err := keyload.ParsePoint(response.QEV)
	if err != nil {
		return err
	}
	a := keyload.Agreement{Request: request, QEV: qev, Static: static, Ephem: ephem, Peer: peer, PeerEphem: qev}
	keys, err := a.Keys()
	if err != nil {
		return err
	}
	tag, err := a.ConfirmationTag(keys.Confirm, response.Record())
	if err != nil {
		return err
	}
	if !bytes.Equal(tag, response.MAC) {
		os.Stdout.WriteString("confirmation: false\n")
	}
	for _, rec := range file.Keys {
		if err := keyload.Authenticate(rec, response.KID, keys.KAK); err != nil {
			return err
		}
		vk, err := keyload.UnwrapVendingKey(rec, keys.KEK)
		if err != nil {
			return err
		}
		line, err := json.Marshal(map[string]any{"record": rec.Body(), "octets": len(vk)})
		if err != nil {
			return err
		}
		os.Stdout.Write(append(line, '\n'))
	}
	return nil
}
