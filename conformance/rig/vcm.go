package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// VCM is a virtual module of a rig, and how to vend with it.
type VCM struct {
	UUID    string
	File    string // the VCM file that the provider sent
	Address string // of the token service
	CA      string // file with its certificate
	User    string // an API user
	Secret  string // file with the user's password
}

// Request is the tenant's wish for a VCM; it returns the request file.
func (r *Rig) Request(ctx context.Context, name string, flags ...string) (string, error) {
	file := r.Mail(name + ".req")
	args := append([]string{"vcm", "create", "--request-file", file, "--name", name}, flags...)
	_, err := r.Run(ctx, Tenant, "hsmadmin", args...)
	return file, err
}

// Create makes the VCM of a request and starts it.
func (r *Rig) Create(ctx context.Context, request, name string, flags ...string) (*VCM, error) {
	outdir := r.Mail("for-" + name)
	if err := os.MkdirAll(outdir, 0o700); err != nil {
		return nil, err
	}
	args := append([]string{"create", "--request", request, "--outdir", outdir}, flags...)
	if _, err := r.Run(ctx, Provider, "vcmadmin", append(args, name)...); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(outdir, "*.vcm"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("vcmadmin create left %d VCM files in %s: %v", len(files), outdir, err)
	}
	v := &VCM{UUID: strings.TrimSuffix(filepath.Base(files[0]), ".vcm"), File: files[0]}
	_, err = r.Run(ctx, Provider, "vcmadmin", "start", v.UUID)
	return v, err
}

// Enrol installs the tenant's service keys in the VCM.
func (r *Rig) Enrol(ctx context.Context, v *VCM) error {
	_, err := r.Run(ctx, Tenant, "hsmadmin", "vcm", "enroll", "--config", v.File, "--maker-root", r.MakerRoot())
	return err
}

// Users sets the first administrator's password and makes an API user.
func (r *Rig) Users(ctx context.Context, v *VCM) error {
	admin, api := r.Path("tenant", "admin.password"), r.Path("vending", "api.password")
	for file, secret := range map[string]string{admin: "Correct-horse-1\n", api: "Battery-staple-2\n"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			return err
		}
	}
	if _, err := r.Run(ctx, Tenant, "ptokenadmin", "user", "set-password", "--password-file", admin, "admin"); err != nil {
		return err
	}
	if _, err := r.Run(ctx, Tenant, "ptokenadmin", "user", "create", "--role", "ptoken-api", "--role", "ptoken-issue-any",
		"--password-file", api, "vending"); err != nil {
		return err
	}
	v.User, v.Secret, v.CA = "vending", api, r.Mail("tokenapi.pem")
	out, err := r.Run(ctx, Tenant, "ptokenadmin", "tls", "certificate", "export", "--json", "--out", v.CA)
	if err != nil {
		return err
	}
	var tls struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal([]byte(out), &tls); err != nil || tls.Address == "" {
		return fmt.Errorf("ptokenadmin tls certificate answered %q: %v", out, err)
	}
	v.Address = tls.Address
	return nil
}

// SupplyGroup is a vending key at the test KMC.
type SupplyGroup struct {
	SGC, DKG, Name string
	Flags          []string
}

// KMC makes a test key management centre with these supply groups.
func (r *Rig) KMC(ctx context.Context, groups ...SupplyGroup) error {
	dir := r.Path("kmc", "centre")
	if _, err := r.Run(ctx, KMC, "kmc", "init", "--dir", dir); err != nil {
		return err
	}
	for _, g := range groups {
		args := append([]string{"sgc", "add", "--dir", dir, "--sgc", g.SGC, "--bdt", "2014", "--dkg", g.DKG, "--sgn", g.Name}, g.Flags...)
		if _, err := r.Run(ctx, KMC, "kmc", args...); err != nil {
			return err
		}
	}
	_, err := r.Run(ctx, KMC, "kmc", "pubkey", "--dir", dir, "--out", r.Mail("kmc.pub"))
	return err
}

// KeyRequest introduces the module to the KMC and asks it for keys.
func (r *Rig) KeyRequest(ctx context.Context) error {
	dir := r.Path("kmc", "centre")
	steps := []struct {
		role Role
		tool string
		args []string
	}{
		{Tenant, "ptokenadmin", []string{"pref", "set", "ptoken.allowUnapprovedKmcPubkeys", "true"}},
		{Tenant, "ptokenadmin", []string{"kmc", "upload-key", r.Mail("kmc.pub")}},
		{Tenant, "ptokenadmin", []string{"sm", "public-key", "--out", r.Mail("module.pub")}},
		{KMC, "kmc", []string{"module", "add", "--dir", dir, "--file", r.Mail("module.pub"), "--maker-root", r.MakerRoot()}},
		{Tenant, "ptokenadmin", []string{"kmc", "generate-request", "--out", r.Mail("vkloadreq.txt"), "TEST-KMC"}},
	}
	for _, s := range steps {
		if _, err := r.Run(ctx, s.role, s.tool, s.args...); err != nil {
			return err
		}
	}
	return nil
}

// KeyLoad lets the KMC answer and loads every key of the answer.
func (r *Rig) KeyLoad(ctx context.Context, module string) error {
	dir := r.Path("kmc", "centre")
	steps := []struct {
		role Role
		tool string
		args []string
	}{
		{KMC, "kmc", []string{"authorise", "--dir", dir, "--module", module, "--all"}},
		{KMC, "kmc", []string{"answer", "--dir", dir, "--request", r.Mail("vkloadreq.txt"), "--out", r.Mail("keys.klf")}},
		{Tenant, "ptokenadmin", []string{"kmc", "upload-klf", r.Mail("keys.klf")}},
		{Tenant, "ptokenadmin", []string{"kmc", "load-all", "TEST-KMC"}},
		{Tenant, "ptokenadmin", []string{"kmc", "end-session", "TEST-KMC"}},
		{Tenant, "ptokenadmin", []string{"vk", "list"}},
	}
	for _, s := range steps {
		if _, err := r.Run(ctx, s.role, s.tool, s.args...); err != nil {
			return err
		}
	}
	return nil
}

// Flags are the vending client's options for this VCM.
func (v *VCM) Flags() []string {
	return []string{"--address", v.Address, "--ca", v.CA, "--user", v.User, "--password-file", v.Secret}
}
