package mistakes_test

import (
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// makerMistakes are those around units, warrants and licences.
func makerMistakes() []mistake {
	warrant := func(file func(w *world) string) func(w *world) answer {
		return func(w *world) answer {
			return w.run(rig.Maker, "hsmd", "warrant", "--state", w.r.Path("second"), "--maker-root", w.r.MakerRoot(), w.file("bad.warrant", file(w)))
		}
	}
	own := func(w *world) string { return w.read(w.r.Mail("second.warrant")) }
	licence := func(file func(w *world) string) func(w *world) answer {
		return func(w *world) answer { return w.run(rig.Provider, "hsmadmin", "fet", w.file("bad.licence", file(w))) }
	}
	issued := func(w *world, r *rig.Rig) string {
		esn, err := w.r.ESN()
		if err != nil {
			w.t.Fatal(err)
		}
		file := w.file("licence", "")
		if _, err := r.Run(w.t.Context(), rig.Maker, "vendor", "licence", "--dir", r.Path("maker", "keys"), "--esn", esn,
			"--type", "max-active-vcms", "--value", "9", "--out", file); err != nil {
			w.t.Fatal(err)
		}
		return w.read(file)
	}
	return []mistake{
		{"install a warrant of another unit", warrant(func(w *world) string { return w.read(w.r.Mail("unit.warrant")) }), refused, []string{"the warrant is for the unit", ", not "}},
		{"install an edited warrant", warrant(func(w *world) string { return strings.Replace(own(w), "STS64V10", "STS64V99", 1) }), integrity, []string{"the signature does not match"}},
		{"install a truncated warrant", warrant(func(w *world) string { return own(w)[:200] }), usage, []string{"carries no signature"}},
		{"make a unit where there is one", func(w *world) answer {
			return w.run(rig.Maker, "hsmd", "init", "--state", w.r.Path("second"))
		}, refused, []string{"already holds a unit; a unit is made once"}},
		{"warrant an edited identity request", func(w *world) answer {
			request := w.file("request", strings.Replace(w.read(w.r.Path("unit", "identity-request")), "TSM500E1", "TSM500E2", 1))
			return w.run(rig.Maker, "vendor", "warrant", "--dir", w.r.Path("maker", "keys"), "--request", request, "--out", w.t.TempDir()+"/warrant")
		}, integrity, []string{"the signature does not match: the file was changed after it was signed"}},
		{"run a second module on one state", func(w *world) answer {
			return w.run(rig.Provider, "hsmd", "run", "--state", w.r.Path("unit"), "--socket", w.t.TempDir()+"/s")
		}, refused, []string{"is in use by another hsmd"}},
		{"apply an edited licence", licence(func(w *world) string { return strings.Replace(issued(w, w.r), "Value: 9", "Value: 10", 1) }), integrity, []string{"the signature does not match"}},
		{"apply another maker's licence", licence(func(w *world) string { return issued(w, w.foreign) }), integrity, []string{"signed by key SHA256:", ", want SHA256:"}},
		{"apply a licence that is none", licence(func(*world) string { return "licence\n" }), usage, []string{"carries no signature"}},
		{"enrol another maker's unit", func(w *world) answer {
			return w.run(rig.Provider, "hsmadmin", "enroll", "--unit", w.foreign.UnitFile())
		}, integrity, []string{"warrant: signed by key SHA256:", ", want SHA256:"}},
	}
}
