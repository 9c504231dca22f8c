package tsm

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// selfTest is a known answer: run turns input into want.
type selfTest struct {
	name  string
	input string // hex
	want  string // hex
	run   func(e *sts.Engine, in []byte) ([]byte, error)
	when  phase
}

// phase is when a self-test is run.
type phase int

const (
	atOpen phase = iota
	// beforeUse is for what no token needs and what would be half of a VCM's
	// start: the curve's tables, which are computed at its first use. The unit
	// has run these too before any of its VCMs starts.
	beforeUse
)

// lateTests are those that run before their algorithms' first use.
type lateTests struct {
	mu       sync.Mutex
	done     bool
	recorded bool // a failure is in the audit log
}

// tested runs the late self-tests, once, and refuses in the error state.
func (m *Module) tested(ctx context.Context) error {
	m.runLateTests()
	m.late.mu.Lock()
	defer m.late.mu.Unlock()
	if m.failure.Load() != nil && !m.late.recorded {
		if err := m.recordFailure(ctx); err != nil {
			return err
		}
	}
	return m.ready()
}

func (m *Module) runLateTests() {
	m.late.mu.Lock()
	defer m.late.mu.Unlock()
	if m.late.done {
		return
	}
	m.late.done = true
	if err := runSelfTests(beforeUse, m.cfg.BreakSelfTest, m.cfg.Cipher); err != nil && m.ready() == nil {
		m.fail(err)
	}
}

// fail puts the module into its error state.
func (m *Module) fail(why error) {
	text := why.Error()
	m.failure.Store(&text)
}

func (m *Module) recordFailure(ctx context.Context) error {
	err := m.cfg.Vault.Update(ctx, func(tx Tx) error {
		return m.audit(tx, Event{Kind: "selftest.failed", Subject: m.cfg.ModuleID, Detail: detail("reason", m.Failure())})
	})
	if err != nil {
		return fmt.Errorf("record the failed self-test: %w", err)
	}
	m.late.recorded = true
	return nil
}

const (
	testKey160 = "ABABABABABABABAB949494949494949401234567"
	testKey128 = "929BD3A415C9420A05EC5EE9F3CE91C3"
	testKeySTA = "0ABC12DEF3456789"
)

// selfTests covers every algorithm that the module's promises rest on.
func selfTests() []selfTest {
	return []selfTest{
		{"sta-encrypt", "0B19EB230100C207", "C45ED1619406DF95", blockTest(sts.EA07, testKeySTA, (*sts.Engine).EncryptBlock), atOpen},
		{"sta-decrypt", "C45ED1619406DF95", "0B19EB230100C207", blockTest(sts.EA07, testKeySTA, (*sts.Engine).DecryptBlock), atOpen},
		{"misty1-encrypt", "0123456789ABCDEF", "8B1DA5F56AB3D07C", blockTest(sts.EA11, "00112233445566778899AABBCCDDEEFF", (*sts.Engine).EncryptBlock), atOpen},
		{"misty1-decrypt", "8B1DA5F56AB3D07C", "0123456789ABCDEF", blockTest(sts.EA11, "00112233445566778899AABBCCDDEEFF", (*sts.Engine).DecryptBlock), atOpen},
		{"dkga02", "ABABABABABABABAB", "E653341F9D5BF36F", dkgaTest(sts.DKGA02, sts.KeyParams{EA: sts.EA07, SGC: 123456, BaseDate: sts.BaseDate1993}), atOpen},
		{"dkga04", testKey160, testKey128, dkgaTest(sts.DKGA04, sts.KeyParams{EA: sts.EA11, SGC: 201457, BaseDate: sts.BaseDate2014}), atOpen},
		{"kcv-64", "ABABABABABABABAB", "C33F45", kcvTest(2), atOpen},
		{"kcv-160", "000102030405060708090A0B0C0D0E0F10111213", "861952", kcvTest(4), atOpen},
		{"token-crc", "C02A552710", "1970", tokenCRC, atOpen},
		{"token-build", "014EEC0001", "32D98A5616345BE2E0", tokenBuild, atOpen},
		{"token-parse", "3538363235373839393836393931333537343836", "05014EEC00013188", tokenParse, atOpen},
		{"token-sta", "0B19EB230100C207", "2C45ED1618406DF950", tokenSTA, atOpen},
		{"record-crc", "313233343536373839", "BB3D", recordCRC, atOpen},
		{"aes-cmac", "6BC1BEE22E409F96E93D7E117393172A", "9E99A7BF31E710900662F65E617C5184", cmacTest, atOpen},
		{"aes-kwp-wrap", "C37B7E6492584340BED12207808941155068F738", kwpWrapped, kwpWrap, atOpen},
		{"aes-kwp-unwrap", kwpWrapped, "C37B7E6492584340BED12207808941155068F738", kwpUnwrap, atOpen},
		{"key-agreement", agreeEphemeral, agreeKeys, agreementTest, beforeUse},
		{"signature", hex.EncodeToString([]byte("CI.TXLIC.1;SMI89051616;")), "01", signatureTest, beforeUse},
	}
}

// runSelfTests runs a phase's self-tests; broken names one whose input is corrupted.
func runSelfTests(now phase, broken string, variant sts.Variant) error {
	engine := sts.NewEngine(nil, variant)
	for _, t := range selfTests() {
		if t.when != now {
			continue
		}
		in, err := hex.DecodeString(t.input)
		if err != nil {
			return fmt.Errorf("self-test %s: its input is damaged", t.name)
		}
		if t.name == broken {
			in[len(in)-1] ^= 0x10
		}
		want, err := hex.DecodeString(t.want)
		if err != nil {
			return fmt.Errorf("self-test %s: its answer is damaged", t.name)
		}
		got, err := t.run(engine, in)
		if err != nil {
			return fmt.Errorf("self-test %s failed: %w", t.name, err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("self-test %s failed: wrong answer", t.name)
		}
	}
	return nil
}

// SelfTest runs all self-tests, as the physical unit does when it starts: its
// VCMs put off those that none of their tokens need. broken names one whose
// input is corrupted, to show that it can fail; "" for none.
func SelfTest(broken string) error {
	for _, p := range []phase{atOpen, beforeUse} {
		if err := runSelfTests(p, broken, sts.ConstantTime); err != nil {
			return err
		}
	}
	return nil
}

// SelfTests returns the names of the self-tests.
func SelfTests() []string {
	var names []string
	for _, t := range selfTests() {
		names = append(names, t.name)
	}
	return names
}

func decoderKey(ea sts.EA, key string) (sts.DecoderKey, error) {
	raw, err := hex.DecodeString(key)
	if err != nil {
		return sts.DecoderKey{}, err
	}
	return sts.NewDecoderKey(ea, sts.DUTK, raw)
}

func blockTest(ea sts.EA, key string, crypt func(*sts.Engine, sts.DecoderKey, uint64) uint64) func(*sts.Engine, []byte) ([]byte, error) {
	return func(e *sts.Engine, in []byte) ([]byte, error) {
		k, err := decoderKey(ea, key)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(nil, crypt(e, k, binary.BigEndian.Uint64(in))), nil
	}
}

func dkgaTest(g sts.DKGA, p sts.KeyParams) func(*sts.Engine, []byte) ([]byte, error) {
	return func(_ *sts.Engine, in []byte) ([]byte, error) {
		vk, err := sts.NewVendingKey(g, in)
		if err != nil {
			return nil, err
		}
		p := p
		if p.PAN, err = sts.ParsePAN("600727000000000009"); err != nil {
			return nil, err
		}
		p.KT, p.KRN, p.TI = sts.DUTK, 1, 1
		k, err := vk.DecoderKey(p)
		return k.AppendBytes(nil), err
	}
}

func kcvTest(dkg int) func(*sts.Engine, []byte) ([]byte, error) {
	return func(_ *sts.Engine, in []byte) ([]byte, error) {
		kcv, err := vendingKeyKCV(dkg, in)
		if err != nil {
			return nil, err
		}
		return hex.DecodeString(kcv)
	}
}

// creditOf makes the compliance tests' credit block from TID and amount.
func creditOf(in []byte) (sts.APDU, error) {
	tid := uint32(in[0])<<16 | uint32(in[1])<<8 | uint32(in[2])
	return sts.Credit{RND: 5, TID: sts.TID(tid), Amount: sts.Amount16(binary.BigEndian.Uint16(in[3:]))}.APDU()
}

func tokenCRC(_ *sts.Engine, in []byte) ([]byte, error) {
	a, err := creditOf(in)
	return binary.BigEndian.AppendUint16(nil, a.CRC()), err
}

func tokenBuild(e *sts.Engine, in []byte) ([]byte, error) {
	a, err := creditOf(in)
	if err != nil {
		return nil, err
	}
	return sealed(e, sts.EA11, testKey128, a)
}

func tokenSTA(e *sts.Engine, in []byte) ([]byte, error) {
	return sealed(e, sts.EA07, testKeySTA, sts.NewAPDU(sts.ClassCredit, binary.BigEndian.Uint64(in)))
}

// sealed returns a token's 17 hex digits, padded to octets.
func sealed(e *sts.Engine, ea sts.EA, key string, a sts.APDU) ([]byte, error) {
	k, err := decoderKey(ea, key)
	if err != nil {
		return nil, err
	}
	t, err := e.Encrypt(k, a)
	if err != nil {
		return nil, err
	}
	return hex.DecodeString(t.Hex() + "0")
}

func tokenParse(e *sts.Engine, in []byte) ([]byte, error) {
	k, err := decoderKey(sts.EA11, testKey128)
	if err != nil {
		return nil, err
	}
	t, err := sts.ParseToken(string(in))
	if err != nil {
		return nil, err
	}
	a, err := e.Decrypt(k, t)
	return binary.BigEndian.AppendUint64(nil, a.Block()), err
}

func recordCRC(_ *sts.Engine, in []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint16(nil, keyload.CRC16(in)), nil
}

// cmacTest is the example of SP 800-38B with one block and an AES-192 key.
func cmacTest(_ *sts.Engine, in []byte) ([]byte, error) {
	key, err := hex.DecodeString("8E73B0F7DA0E6452C810F32B809079E562F8EAD2522C6B7B")
	if err != nil {
		return nil, err
	}
	return keyload.CMAC(key, in)
}

// The key-wrap answers are the example of RFC 5649 with 20 octets.
const (
	kwpKey     = "5840DF6E29B02AF1AB493B705BF16EA1AE8338F4DCC176A8"
	kwpWrapped = "138BDEAA9B8FA7FC61F97742E72248EE5AE6AE5360D1AE6A5F54F373FA543B6A"
)

func kwpWrap(_ *sts.Engine, in []byte) ([]byte, error) {
	key, err := hex.DecodeString(kwpKey)
	if err != nil {
		return nil, err
	}
	return keyload.WrapKey(key, in)
}

func kwpUnwrap(_ *sts.Engine, in []byte) ([]byte, error) {
	key, err := hex.DecodeString(kwpKey)
	if err != nil {
		return nil, err
	}
	return keyload.UnwrapKey(key, in)
}

// The key agreement's answers are those of the published vector.
const (
	agreeStatic    = "D10712A7D2C03430C9F689C5888AC04A0F2E70C12EAD9CA6E0EC9BAC3B495BC5FC77429069F3F1C8D7E97EC32E03A9BF"
	agreeEphemeral = "AA3C134C029214205FD9223497931622D4E1CDED2CF52A1890227AD72CEFC21A4A828E630C0DFA179B5D856647B13A9C"
	agreeRequest   = "VKLOAD.REQ.1;SMI89051616;SPN1;KMCTEST-KMC;KPN1;TVP20251120120000;SCHC22;HWITSM500I;FWISTS64V10;QEU04AAEF961E70A1E8F72047AA007839CE190B8BFD5693BD81657A844DC2ADD6CB8EAE9FEC2690A65C8B939721F2BEA1C0922A3BD039658A49E9506C587218D8A765B19A6CBA0D83F0BAB8115F410E5B514EB0981E30A38BDFF6F7D9E82B38C3C8A9;CRCE212"
	agreeQSV       = "04D0546772FC0EE9789892DCD6BCF62C6579B7A9D4E8534ABC4B5039D33F386F4B66FBFEAE22A8A261671EB56EDB0BF4F26CBA079FE159BEF089910A995626FA788DA2278F57D4F434FB40203C000E0A0B2BFE5B504FD5419EEC24F28A49931495"
	agreeQEV       = "04F46A2E9F070E670DC42FF9B4F19C199A7E7AB4D877D6A0F5DDA608D8A9F193A6745963DA129A445766D127F6440FBADE2BF1D250543280E6AD51B35EE7A475A92811250EC6EDFCBC1D189D2CA4F75C0230234535F4D0DCF0495DD2D9689E37C1"
	agreeKeys      = "9F87AA0D413C00262339814ACED7ED4E3FC118C67401E855E5D69ECE8B94027D75D0DE8DD79B4B871B7927E4F0D4DBC73BA0950895495C1180B35B7ACFA7D816BAA529544D57F859"
)

func agreementTest(_ *sts.Engine, in []byte) ([]byte, error) {
	request, err := keyload.ParseRequestText(agreeRequest)
	if err != nil {
		return nil, err
	}
	a := keyload.Agreement{Request: request}
	if a.Ephem, err = ecdh.P384().NewPrivateKey(in); err != nil {
		return nil, err
	}
	static, err := hex.DecodeString(agreeStatic)
	if err != nil {
		return nil, err
	}
	if a.Static, err = ecdh.P384().NewPrivateKey(static); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		hex string
		key **ecdh.PublicKey
	}{{agreeQSV, &a.Peer}, {agreeQEV, &a.PeerEphem}} {
		raw, err := hex.DecodeString(p.hex)
		if err != nil {
			return nil, err
		}
		if *p.key, err = keyload.ParsePoint(raw); err != nil {
			return nil, err
		}
	}
	a.QEV = a.PeerEphem
	keys, err := a.Keys()
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{keys.Confirm, keys.KEK, keys.KAK}, nil), nil
}

const (
	signatureKey   = "044BD4DB91D3D30EABFB022997B9587941FA97575F3825F17EC0ED11F3EDCE8A673907280B7F1539FA364A71DB0DA1F6AD1B56546DA46ED18B73C96E23E4BE8C4848422A369F97EB1B7489B236A1A3CAE82D0EAED566FC6AB9C74D14AD49B1F8B0"
	signatureValue = "75188618A34591392982B1CB3A5A99D557FAADF8BBFE7C2A08CF64286963FEA130A593D2ADD2DD9A8B7BB59F45ED7C18E676E03F3E4587E46839AEA9115CA76E715571EF26365E0E9AECA903149F20F015F4A8F776FA3AA8EA241B789591D422"
)

func signatureTest(_ *sts.Engine, in []byte) ([]byte, error) {
	point, err := hex.DecodeString(signatureKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), point)
	if err != nil {
		return nil, err
	}
	signature, err := hex.DecodeString(signatureValue)
	if err != nil {
		return nil, err
	}
	if !keyload.VerifyInstruction(key, string(in), signature) {
		return []byte{0}, nil
	}
	return []byte{1}, nil
}
