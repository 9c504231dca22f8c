package mistakes_test

import (
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// userMistakes are those of a tenant's administrator with users and preferences.
func userMistakes() []mistake {
	create := func(password string, args ...string) func(w *world) answer {
		return func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", append([]string{"user", "create", "--password-file", w.file("password", password+"\n")}, args...)...)
		}
	}
	ptokenadmin := func(args ...string) func(w *world) answer {
		return func(w *world) answer { return w.run(rig.Tenant, "ptokenadmin", args...) }
	}
	return []mistake{
		{"create a user with a short password", create("short", "--role", "ptoken-api", "new"), usage, []string{"the password is too weak"}},
		{"create a user who exists", create("Correct-horse-9", "--role", "ptoken-api", "vending"), refused, []string{`user "vending" exists already`}},
		{"create a user with an unknown role", create("Correct-horse-9", "--role", "emperor", "new"), usage, []string{`unknown role "emperor"`, "ptoken-api"}},
		{"show a user who is not there", ptokenadmin("user", "show", "nobody"), notFound, []string{`no user "nobody"`}},
		{"delete a user who is not there", ptokenadmin("user", "delete", "--yes", "nobody"), notFound, []string{`no user "nobody"`}},
		{"set an unknown preference", ptokenadmin("pref", "set", "ptoken.colour", "red"), notFound, []string{`no preference "ptoken.colour"`}},
		{"set a preference out of range", ptokenadmin("pref", "set", "ptoken.resultCacheEntries", "1"), usage, []string{"expected 100..20000"}},
		{"import a certificate without its key", func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", "tls", "import", "--yes", "--chain", w.v.CA, "--key", w.file("key", "no key\n"))
		}, usage, []string{"no key in PEM form was given"}},
	}
}

// vendingMistakes are those of the vending system and of the customer.
func vendingMistakes() []mistake {
	vend := func(verb string, args ...string) func(w *world) answer {
		return func(w *world) answer { return w.vend(verb, args...) }
	}
	known := []string{"--drn", "01234567897", "--ea", "11", "--krn", "1", "--ti", "1"}
	credit := func(args ...string) func(w *world) answer {
		return vend("credit", append(append([]string{}, known...), args...)...)
	}
	meter := func(args ...string) func(w *world) answer {
		return func(w *world) answer {
			return w.run(rig.Customer, "meter", append([]string{"enter", "--state", w.meter}, args...)...)
		}
	}
	return []mistake{
		{"vend for an unknown supply group", credit("--sgc", nobody, "--kwh", "1"), notFound, []string{"EKeystore.NotFound", nobody}},
		{"vend for an unknown key revision", credit("--sgc", group, "--krn", "2", "--kwh", "1"), notFound, []string{"EKeystore.NotFound"}},
		{"vend with a wrong password", func(w *world) answer {
			return w.run(rig.Vending, "vend", append([]string{"credit", "--address", w.v.Address, "--ca", w.v.CA, "--user", w.v.User,
				"--password-file", w.file("password", "Wrong-horse-1\n"), "--sgc", group, "--kwh", "1"}, known...)...)
		}, refused, []string{"ESignin.Authentication"}},
		{"vend as an unknown user", func(w *world) answer {
			return w.run(rig.Vending, "vend", append([]string{"credit", "--address", w.v.Address, "--ca", w.v.CA, "--user", "nobody",
				"--password-file", w.v.Secret, "--sgc", group, "--kwh", "1"}, known...)...)
		}, refused, []string{"ESignin.Subject"}},
		{"vend without trust in the server", func(w *world) answer {
			return w.run(rig.Vending, "vend", "ping", "--address", w.v.Address, "--ca", w.other.CA)
		}, integrity, []string{"the server's certificate is not trusted"}},
		{"vend to a mistyped meter", vend("credit", "--drn", "01234567890", "--ea", "11", "--sgc", group, "--krn", "1", "--ti", "1", "--kwh", "1"),
			usage, []string{"ESts.DrnOrPan.CheckDigit"}},
		{"vend too much", credit("--sgc", group, "--kwh", "99999999"), usage, []string{"EParamRange: Parameter 'transferAmount' out of range"}},
		{"vend by an algorithm that is not the key's", vend("credit", "--drn", "01234567897", "--ea", "12", "--sgc", group, "--krn", "1", "--ti", "1", "--kwh", "1"),
			usage, []string{"EParamRange: Parameter 'ea' out of range: got '12', expected 7 or 11"}},
		{"change a key to an unknown one", vend("keychange", append(append([]string{}, known...), "--sgc", group, "--to-sgc", nobody, "--to-krn", "1", "--to-ti", "1")...),
			notFound, []string{"EKeystore.NotFound"}},
		{"vend where nobody listens", func(w *world) answer {
			return w.run(rig.Vending, "vend", "ping", "--address", strings.Replace(w.v.Address, ":9443", ":9", 1), "--ca", w.v.CA)
		}, unavailable, []string{"connection refused"}},
		{"enter a mistyped token", meter("12345678901234567890"), refused, []string{"crc-error"}},
		{"enter too few digits", meter("1234567890123456789"), usage, []string{"19 digits where a token has 20"}},
		{"enter letters", meter("1234567890123456789X"), usage, []string{"is no part of a token"}},
		{"enter a number that is no token", meter("99999999999999999999"), usage, []string{"the digits do not fit 66 bits"}},
	}
}

// vend is the vending client with its user.
func (w *world) vend(verb string, args ...string) answer {
	w.t.Helper()
	return w.run(rig.Vending, "vend", append(append([]string{verb}, w.v.Flags()...), args...)...)
}
