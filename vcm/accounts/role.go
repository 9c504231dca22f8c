package accounts

import (
	"slices"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// A Role is a named bundle of permissions. The names up to RoleIssueProprietary
// are the product's; the rest complete the family where no name is published.
type Role = string

// Roles.
const (
	RoleAdmin            Role = "admin"
	RoleNone             Role = "none" // disables an account
	RoleTokenAdmin       Role = "ptoken-admin"
	RoleTokenOperator    Role = "ptoken-operator"
	RoleAPI              Role = "ptoken-api"
	RoleIssueAny         Role = "ptoken-issue-any"
	RoleIssueEng         Role = "ptoken-issue-eng"
	RoleIssueProprietary Role = "ptoken-issue-proprietary"
	RoleIssueCredit      Role = "ptoken-issue-credit"
	RoleIssueKCT         Role = "ptoken-issue-kct"
	RoleIssueDITK        Role = "ptoken-issue-ditk"
	RoleIssueNMSE        Role = "ptoken-issue-nmse"
	RoleVerify           Role = "ptoken-verify"
)

// Permission is what one role grants; a set of them is a bit mask.
type Permission uint32

// Permissions, one a role.
const (
	MayAdminister Permission = 1 << iota
	MayAdministerTokens
	MayOperateTokens
	MayUseAPI
	MayIssueAny
	MayIssueEng
	MayIssueProprietary
	MayIssueCredit
	MayIssueKCT
	MayIssueDITK
	MayIssueNMSE
	MayVerify
)

type roleInfo struct {
	role       Role
	grants     Permission
	permission string // as error texts name it
	about      string
}

func roleTable() []roleInfo {
	return []roleInfo{
		{RoleAdmin, MayAdminister, "admin", "users, preferences, licences"},
		{RoleNone, 0, "none", "disables the account"},
		{RoleTokenAdmin, MayAdministerTokens | MayOperateTokens, "ptoken.admin", "token preferences, KMC public keys, and all an operator may"},
		{RoleTokenOperator, MayOperateTokens, "ptoken.operator", "key requests, key load files, vending keys"},
		{RoleAPI, MayUseAPI, "ptoken.api", "sign in to the token service"},
		{RoleIssueAny, MayIssueAny, "ptoken.issue.any", "issue tokens of every kind"},
		{RoleIssueEng, MayIssueEng, "ptoken.issue.eng", "issue engineering tokens"},
		{RoleIssueProprietary, MayIssueProprietary, "ptoken.issue.proprietary", "with ptoken-issue-eng: proprietary engineering tokens"},
		{RoleIssueCredit, MayIssueCredit, "ptoken.issue.credit", "issue credit tokens"},
		{RoleIssueKCT, MayIssueKCT, "ptoken.issue.kct", "issue key change tokens"},
		{RoleIssueDITK, MayIssueDITK, "ptoken.issue.ditk", "issue key change tokens from a manufacturing key"},
		{RoleIssueNMSE, MayIssueNMSE, "ptoken.issue.nmse", "issue meter test tokens"},
		{RoleVerify, MayVerify, "ptoken.verify", "verify tokens"},
	}
}

// RoleInfo says what a role is for.
type RoleInfo struct {
	Name  Role
	About string
}

// Roles lists every role.
func Roles() []RoleInfo {
	var out []RoleInfo
	for _, r := range roleTable() {
		out = append(out, RoleInfo{r.role, r.about})
	}
	return out
}

// MayIssue is every permission that lets its holder issue some token.
const MayIssue = MayIssueAny | MayIssueEng | MayIssueProprietary | MayIssueCredit | MayIssueKCT | MayIssueDITK | MayIssueNMSE

// Has reports whether p includes all of want.
func (p Permission) Has(want Permission) bool { return p&want == want }

// String names the permissions as error texts do.
func (p Permission) String() string {
	var names []string
	for _, r := range roleTable() {
		if r.role != RoleTokenAdmin && r.grants != 0 && p.Has(r.grants) {
			names = append(names, r.permission)
		}
	}
	if p.Has(MayAdministerTokens) {
		names = append(names, "ptoken.admin")
	}
	return strings.Join(names, "+")
}

func permissions(roles []Role) Permission {
	var p Permission
	for _, r := range roleTable() {
		if slices.Contains(roles, r.role) {
			p |= r.grants
		}
	}
	if slices.Contains(roles, RoleNone) {
		return 0
	}
	return p
}

// checkRoles returns the roles sorted, without repetition.
func checkRoles(roles []Role) ([]Role, error) {
	var names []string
	for _, k := range roleTable() {
		names = append(names, k.role)
	}
	out := make([]Role, 0, len(roles))
	for _, r := range roles {
		if !slices.Contains(names, r) {
			return nil, errkind.Errorf(errkind.Invalid, "unknown role %q: use one of %s", r, strings.Join(names, ", "))
		}
		out = append(out, r)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "a user needs at least one role; %q disables the account", RoleNone)
	}
	if len(out) > 1 && slices.Contains(out, RoleNone) {
		return nil, errkind.Errorf(errkind.Invalid, "role %q disables the account and goes with no other role", RoleNone)
	}
	return out, nil
}
