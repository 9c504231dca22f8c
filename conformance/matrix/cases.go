package matrix

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Group is a vending key that a target has to hold.
type Group struct {
	SGC string
	KTC string
	SBM string // credit subclasses, hex
	ULM uint32 // 0: no limit
}

// Groups are the vending keys that the cases are about.
func Groups() []Group {
	return []Group{
		{SGC: "123456", KTC: "VUDK", SBM: "FFFF"}, {SGC: "654321", KTC: "VUDK", SBM: "FFFF"},
		{SGC: "222222", KTC: "VUDK", SBM: "0001", ULM: 1000}, {SGC: "991993", KTC: "VDDK", SBM: "FFFF"},
	}
}

// ValidMeter is a configuration under the first of the groups.
func ValidMeter() *prismtoken1.MeterConfigIn {
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken = "00000000000", 7, 2, 123456, 1, 1, 255
	return m
}

func validAmendment() *prismtoken1.MeterConfigAmendment {
	return &prismtoken1.MeterConfigAmendment{ToSgc: 654321, ToKrn: 1, ToTi: 1}
}

func concat(lists ...[]Case) []Case { return slices.Concat(lists...) }

func free(why string, fields ...string) map[string]string {
	out := map[string]string{}
	for _, f := range fields {
		out[f] = why
	}
	return out
}

// last is the name of a field as error texts have it.
func last(path string) string { return path[strings.LastIndex(path, ".")+1:] }

func both(first string, a any, second string, b any) func(thrift.TStruct) {
	return func(args thrift.TStruct) {
		set(args, first, a)
		set(args, second, b)
	}
}

func text(name, field, value, code, said string) Case {
	return Case{name, field, func(a thrift.TStruct) { set(a, field, value) }, code, said}
}

// outOfRange is a value that the service refuses by the field's name.
func outOfRange(field string, value any) Case {
	return Case{fmt.Sprintf("%s %.20q", field, fmt.Sprint(value)), field, func(a thrift.TStruct) { set(a, field, value) },
		"EParamRange", "Parameter '" + last(field) + "' out of range"}
}

// fine is another valid value.
func fine(field string, value any) Case {
	return Case{fmt.Sprintf("%s %.20q", field, fmt.Sprint(value)), field, func(a thrift.TStruct) { set(a, field, value) }, "", ""}
}

func several(field string, values ...any) (out []Case) {
	for _, v := range values {
		out = append(out, outOfRange(field, v))
	}
	return out
}

// with makes a change before each case.
func with(cases []Case, name string, change func(thrift.TStruct)) []Case {
	out := slices.Clone(cases)
	for i, c := range out {
		out[i].Name = name + c.Name
		out[i].Set = func(a thrift.TStruct) {
			change(a)
			c.Set(a)
		}
	}
	return out
}

// integer is a field that has to lie in low..high: the values beside that range, and
// the least and the greatest that travel in 16 bits, are refused. Both ends are fine
// in themselves, so they are not tried here.
func integer(field string, low, high int64) (out []Case) {
	for _, v := range []int64{low - 1, high + 1, math.MinInt16, math.MaxInt16} {
		if v < low || v > high {
			out = append(out, outOfRange(field, v))
		}
	}
	return out
}

// idents is a field that takes an identifier.
func idents(field string) []Case {
	return several(field, "", "not an ident", "-begins", strings.Repeat("x", 41), "ü", "\xff\x00")
}

// compressed is a transferAmount in units.
func compressed() []Case {
	var out []Case
	for _, v := range []any{0, math.Copysign(0, -1), math.SmallestNonzeroFloat64, 102.5, 18201624} {
		out = append(out, fine("transferAmount", v))
	}
	return append(out, several("transferAmount", -1, -0.5, 18201625, 18201624.5, 1e300, math.NaN(), math.Inf(1), math.Inf(-1))...)
}

func meterCases() []Case {
	const drn, doe = "meterConfig.drn", "meterConfig.doe"
	return concat([]Case{
		text("drn empty", drn, "", "ESts.DrnOrPan", "Parameter 'drn'"),
		text("drn digits", drn, "1234567890x", "ESts.DrnOrPan", "Parameter 'drn'"),
		text("drn length", drn, "123", "ESts.DrnOrPan", "Parameter 'drn'"),
		text("drn not text", drn, "\xff\x00", "ESts.DrnOrPan", "got '??'"),
		text("pan iin", drn, "600728000000000009", "ESts.DrnOrPan", "Parameter 'drn'"),
		text("drn check digit", drn, "00000000001", "ESts.DrnOrPan.CheckDigit", "got '00000000001'"),
		text("pan check digit", drn, "600727000000000008", "ESts.DrnOrPan.CheckDigit", "got '600727000000000008'"),
		text("doe past", doe, "2603", "ESts.IdRecord.Expired", "(YYMM='2603')"),
	},
		several("meterConfig.ea", -1, 0, 6, 8, 9, 10, 12, 99, 100, math.MinInt16, math.MaxInt16),
		integer("meterConfig.tct", 0, 99), integer("meterConfig.sgc", 0, 999999), integer("meterConfig.krn", 1, 9),
		integer("meterConfig.ti", 0, 99), integer("meterConfig.ken", 0, 255), several(doe, "2613", "260", "26011", "26-1", "\xff\x00\xff\x00"),
		[]Case{{"key unknown", "meterConfig.sgc", func(a thrift.TStruct) { set(a, "meterConfig.sgc", 111111) },
			"EKeystore.NotFound", "SGC=111111,KRN=1 (reason: not in the key store)"}})
}

// outside is an amendment with each field out of its range.
func outside(path string) []Case {
	return concat(integer(path+".toSgc", 0, 999999), integer(path+".toKrn", 1, 9), integer(path+".toTi", 0, 99))
}

// changeCases is an amendment that is followed.
func changeCases(path string) []Case {
	return append(outside(path), Case{"new key unknown", path + ".toSgc", func(a thrift.TStruct) { set(a, path+".toSgc", 111111) },
		"EKeystore.NotFound", "SGC=111111,KRN=1"})
}

// outOfWindow is the case of a time that only a module in CTS mode takes.
const outOfWindow = "out of the window"

// timeCases are those of flags and tokenTime.
func timeCases() []Case {
	at := func(name string, flags, time int64, code, text string) Case {
		return Case{name, "tokenTime", both("flags", flags, "tokenTime", time), code, text}
	}
	const outOfRange, time = "EParamRange", "Parameter 'tokenTime' out of range"
	return append(several("flags", -1, 3, 6, 7, 8, 9, int64(math.MinInt64), int64(math.MaxInt64), int64(1)<<32),
		at("clock before 1993", 1, 725846399, outOfRange, time), at("no clock", 1, -1, outOfRange, time),
		at("clock after all", 1, 1<<40, outOfRange, time), at("greatest clock", 1, math.MaxInt64, outOfRange, time),
		at("special before 1993", 5, 0, outOfRange, time), at("least special", 5, math.MinInt64, outOfRange, time),
		at("minute before 1993", 2, -1, outOfRange, time), at("greatest minute", 2, math.MaxInt64, outOfRange, time),
		at("before the base date", 2, 100, "ESts.VkBeforeBdt", "before its Base Date"),
		at("beyond KEN", 2, 11044800+1<<24, "ESts.VkExpired", "exceeds KeyExpiryNumber"),
		at(outOfWindow, 2, 11044800+5_000_000, "ESm", "Security Module error '44': STS API error TID_OUT_OF_WINDOW"))
}

// issueCases are those that credit and engineering tokens share.
func issueCases() []Case {
	return concat(idents("messageId"), meterCases(), changeCases("meterConfig.newConfig"), integer("subclass", 0, 15), timeCases())
}
