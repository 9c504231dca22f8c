package mistakes_test

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

const signatureBegin = "-----BEGIN SSH SIGNATURE-----"

// requestMistakes are bad request files, as the provider's tools meet them: who
// looks into a request, and who makes a VCM of it.
func requestMistakes() []mistake {
	var out []mistake
	for _, b := range []struct {
		name string
		file func(w *world) string
		code int
		says []string
	}{
		{"unsigned", func(w *world) string { m, _, _ := strings.Cut(good(w), signatureBegin); return m }, usage, []string{"carries no signature"}},
		{"edited", func(w *world) string {
			return strings.Replace(good(w), "Property.name: mistaken", "Property.name: altered", 1)
		}, integrity, []string{"the signature does not match: the file was changed after it was signed"}},
		{"signed by another", func(w *world) string {
			message, _, _ := strings.Cut(good(w), signatureBegin)
			_, signature, _ := strings.Cut(w.read(w.r.Mail("utility-a.req")), signatureBegin)
			return message + signatureBegin + signature
		}, integrity, []string{"signed by key SHA256:", ", want SHA256:"}},
		{"expired", func(w *world) string { return dated(w, -2*time.Hour, -time.Hour) }, refused, []string{"the request expired at ", "and it is "}},
		{"not yet valid", func(w *world) string { return dated(w, time.Hour, 2*time.Hour) }, refused, []string{"the request is valid from ", "and it is "}},
		{"truncated", func(w *world) string { return good(w)[:300] }, usage, []string{"carries no signature"}},
		{"truncated in the signature", func(w *world) string { g := good(w); return g[:len(g)-60] }, usage, []string{"the signature has no end: the file is cut off"}},
		{"with trailing bytes", func(w *world) string { return good(w) + "\n" }, usage, []string{"1 bytes follow the signature; nothing may"}},
		{"with an unknown property", func(w *world) string {
			return strings.Replace(good(w), "Property.name: ", "Property.colour: red\nProperty.name: ", 1)
		}, usage, []string{`there is no property "colour"`, "restrict_startup"}},
		{"empty", func(*world) string { return "" }, usage, []string{"carries no signature"}},
		{"that is no text", func(*world) string { return "\x00\x01\x02" }, usage, []string{"carries no signature"}},
	} {
		out = append(out,
			mistake{"inspect a request " + b.name, func(w *world) answer {
				return w.run(rig.Provider, "hsmadmin", "vcm", "inspect-request", "--verify", w.file("bad.req", b.file(w)))
			}, b.code, b.says},
			mistake{"create by a request " + b.name, func(w *world) answer {
				return w.run(rig.Provider, "vcmadmin", "create", "--request", w.file("bad.req", b.file(w)), "--outdir", w.t.TempDir(), "mistaken")
			}, b.code, b.says})
	}
	return out
}

// good is a request that nothing is wrong with but the number of VCMs.
func good(w *world) string { return dated(w, -time.Minute, time.Hour) }

// dated is a good request valid from and until these times from now.
func dated(w *world, from, until time.Duration) string {
	w.t.Helper()
	signer, err := rig.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	now, name := time.Now().UTC().Truncate(time.Second), "mistaken"
	file, err := (&request.Request{
		Kind: request.Create, ID: uuid.NewString(), Created: now.Add(from), NotBefore: now.Add(from), Expires: now.Add(until),
		Properties: request.Properties{Name: &name}, SSHAdminKey: signer.PublicKey(), RequestKey: signer.PublicKey(),
	}).Sign(signer)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(file)
}

// hostingMistakes are the provider's.
func hostingMistakes() []mistake {
	vcmadmin := func(args ...string) func(w *world) answer {
		return func(w *world) answer {
			args := append([]string{}, args...)
			for i, a := range args {
				args[i] = strings.NewReplacer("UUID", w.v.UUID, "MAIL", w.r.Mail("")).Replace(a)
			}
			if args[0] == "create" {
				args = append([]string{"create", "--outdir", w.t.TempDir()}, args[1:]...)
			}
			return w.run(rig.Provider, "vcmadmin", args...)
		}
	}
	const unknown = "11111111-2222-4333-8444-555555555555"
	change := func(role rig.Role, flags ...string) func(w *world) answer {
		return func(w *world) answer {
			file := w.file("change.req", "")
			args := append([]string{"vcm", "setproperties", "--force", "--request-file", file, "--uuid", w.resting}, flags...)
			if out := w.run(role, "hsmadmin", args...); out.code != 0 {
				w.t.Fatal(out.text)
			}
			return w.run(rig.Provider, "vcmadmin", "properties", "set", "--request", file, w.resting, "name", "renamed")
		}
	}
	return []mistake{
		{"create more VCMs than are licensed", func(w *world) answer {
			out, err := w.foreign.Try(w.t.Context(), rig.Provider, "vcmadmin", "create", "--request", w.r.Mail("rival.req"),
				"--outdir", w.t.TempDir(), "rival")
			if err != nil {
				w.t.Fatal(err)
			}
			return answer{out.Code, out.All}
		}, limit, []string{"the unit holds 1 VCM", "hsmadmin fet"}},
		{"create into a folder that is not there", vcmadmin("create", "--outdir", "MAIL/nowhere", "--request", "MAIL/rival.req", "rival"), notFound, []string{"is no folder"}},
		{"change a property of a VCM that runs", func(w *world) answer {
			return w.run(rig.Provider, "vcmadmin", "properties", "set", "--request", w.r.Mail("rival.req"), w.v.UUID, "name", "renamed")
		}, refused, []string{"is running: stop it before"}},
		{"start by another tenant's request", func(w *world) answer {
			file := w.file("start.req", "")
			if out := w.run(Rival, "hsmadmin", "vcm", "start", "--force", "--request-file", file, "--uuid", w.resting); out.code != done {
				w.t.Fatal(out.text)
			}
			return w.run(rig.Provider, "vcmadmin", "start", "--request", file, w.resting)
		}, integrity, []string{"tenant request: signed by key SHA256:", ", want SHA256:"}},
		{"create by a start request", func(w *world) answer {
			file := w.file("start.req", "")
			if out := w.run(Rival, "hsmadmin", "vcm", "start", "--force", "--request-file", file, "--uuid", w.v.UUID); out.code != 0 {
				w.t.Fatal(out.text)
			}
			return w.run(rig.Provider, "vcmadmin", "create", "--request", file, "--outdir", w.t.TempDir(), "started")
		}, refused, []string{"the request is of kind start; one of kind create is needed"}},
		{"start what runs", vcmadmin("start", "UUID"), refused, []string{"it is running already"}},
		{"start what is not there", vcmadmin("start", unknown), notFound, []string{"has no VCM 11111111-"}},
		{"start what is no VCM", vcmadmin("start", "utility-a"), usage, []string{`"utility-a" is no UUID`}},
		{"stop a VCM that vends", vcmadmin("stop", "UUID"), refused, []string{"is operational", "--force"}},
		{"delete what runs", vcmadmin("delete", "--yes", "UUID"), refused, []string{"is running: stop it first"}},
		{"show what is not there", vcmadmin("show", unknown), notFound, []string{"has no VCM 11111111-"}},
		{"change a property by another tenant's request", change(Rival, "--name", "renamed"), integrity, []string{"tenant request: signed by key SHA256:", ", want SHA256:"}},
		{"change a property to another value than was asked for", change(rig.Tenant, "--name", "otherwise"), refused, []string{`name mismatch: the request says "otherwise"`}},
		{"change a property that was not asked for", change(rig.Tenant, "--no-autostart"), refused, []string{"the request does not change name; it changes autostart"}},
	}
}

// enrolMistakes are a tenant's with VCM files.
func enrolMistakes() []mistake {
	enrol := func(role rig.Role, file func(w *world) string) func(w *world) answer {
		return func(w *world) answer {
			return w.run(role, "hsmadmin", "vcm", "enroll", "--config", w.file("bad.vcm", file(w)))
		}
	}
	own := func(w *world) string { return w.read(w.v.File) }
	return []mistake{
		{"enrol by an edited VCM file", enrol(rig.Tenant, func(w *world) string {
			return strings.Replace(own(w), "Property.name: utility-a", "Property.name: utility-b", 1)
		}), integrity, []string{"the signature does not match: the file was changed after it was signed"}},
		{"enrol by a VCM file that was signed by another unit", enrol(rig.Tenant, func(w *world) string { return w.read(w.other.File) }), integrity, []string{"warrant: signed by key SHA256:", ", want SHA256:"}},
		{"enrol by a VCM file with another unit's signature", enrol(rig.Tenant, func(w *world) string {
			message, _, _ := strings.Cut(own(w), signatureBegin)
			_, signature, _ := strings.Cut(w.read(w.other.File), signatureBegin)
			return message + signatureBegin + signature
		}), integrity, []string{"signed by key SHA256:", ", want SHA256:"}},
		{"enrol by a VCM file with another unit's key and signature", enrol(rig.Tenant, func(w *world) string { return transplant(own(w), w.read(w.other.File)) }), integrity, []string{"signed by key SHA256:", ", want SHA256:"}},
		{"enrol by a truncated VCM file", enrol(rig.Tenant, func(w *world) string { return own(w)[:500] }), usage, []string{"carries no signature"}},
		{"enrol by a VCM file with trailing bytes", enrol(rig.Tenant, func(w *world) string { return own(w) + "x" }), usage, []string{"1 bytes follow the signature; nothing may"}},
		{"enrol by a request instead of a VCM file", enrol(rig.Tenant, func(w *world) string { return w.read(w.r.Mail("utility-a.req")) }), usage, []string{`is "tesserae tenant request", want "tesserae vcm file"`}},
		{"enrol by a file that is not there", func(w *world) answer {
			return w.run(rig.Tenant, "hsmadmin", "vcm", "enroll", "--config", w.r.Mail("nothing.vcm"))
		}, notFound, []string{"nothing.vcm: no such file or directory"}},
		{"enrol another maker's root", func(w *world) answer {
			return w.run(rig.Tenant, "hsmadmin", "vcm", "enroll", "--config", w.other.File, "--maker-root", w.foreign.MakerRoot())
		}, integrity, []string{"The pinned maker root is SHA256:", "if the maker has really changed"}},
		{"enrol another tenant's VCM", func(w *world) answer {
			return w.run(Rival, "hsmadmin", "vcm", "enroll", "--config", w.v.File)
		}, refused, []string{"service sshadmin at", "does not accept the client key"}},
		{"administer a VCM that is not enrolled", func(w *world) answer {
			return w.run(Rival, "ptokenadmin", "status")
		}, notFound, []string{"No VCM is enrolled on this host"}},
		{"verify another VCM's log", func(w *world) answer {
			return w.run(rig.Tenant, "hsmadmin", "vcm", "logs", "verify", w.file("foreign.log", w.foreignLog()))
		}, integrity, []string{"the log key's certificate is not signed by the unit key"}},
	}
}

// transplant puts the unit's key and warrant of another VCM file, and its
// signature, into a file.
func transplant(file, other string) string {
	message, _, _ := strings.Cut(file, "\nUnit-Key: ")
	_, rest, _ := strings.Cut(other, "\nUnit-Key: ")
	return message + "\nUnit-Key: " + rest
}

// foreignLog is an exported log of the other unit's VCM.
func (w *world) foreignLog() string {
	w.t.Helper()
	dir := w.t.TempDir()
	if _, err := w.foreign.Run(w.t.Context(), rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--saved", "--outdir", dir); err != nil {
		w.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) == 0 {
		w.t.Fatalf("no log was exported: %v", err)
	}
	return w.read(files[0])
}
