package ptokenadmin

import (
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type userJSON struct {
	Username        string   `json:"username"`
	Roles           []string `json:"roles"`
	PasswordSet     bool     `json:"password_set"`
	Disabled        bool     `json:"disabled"`
	Locked          bool     `json:"locked"`
	AccountExpires  string   `json:"account_expires"`
	PasswordExpires string   `json:"password_expires"`
	LastSignIn      string   `json:"last_sign_in"`
	FailedSignIns   int32    `json:"failed_sign_ins"`
}

func userOut(u *prismadmin.User) userJSON {
	return userJSON{
		u.Username, append([]string{}, u.Roles...), u.PasswordSet, u.Disabled, u.Locked,
		stamp(u.AccountExpires), stamp(u.PasswordExpires), stamp(u.LastSignIn), u.FailedSignIns,
	}
}

func (t tool) printUser(c *cli.Context, u *prismadmin.User) error {
	out := userOut(u)
	return t.env.Print(c, out, func(w io.Writer) error {
		console.Fields(w,
			[2]string{"USERNAME", out.Username}, [2]string{"ROLES", strings.Join(out.Roles, ", ")},
			[2]string{"STATE", userState(u)}, [2]string{"ACCOUNT EXPIRES", out.AccountExpires},
			[2]string{"PASSWORD EXPIRES", out.PasswordExpires}, [2]string{"LAST SIGN-IN", out.LastSignIn},
			[2]string{"FAILED SIGN-INS", strconv.Itoa(int(out.FailedSignIns))})
		return nil
	})
}

func userState(u *prismadmin.User) string {
	switch {
	case u.Disabled:
		return "disabled"
	case u.Locked:
		return "locked"
	case !u.PasswordSet:
		return "no password"
	}
	return "active"
}

func rolesFlag(usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: "role", Usage: usage}
}

func passwordFlag() cli.Flag {
	return &cli.StringFlag{Name: "password-file", Usage: "file with the password on its first line, '-' for standard input, instead of a prompt"}
}
