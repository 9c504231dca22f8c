package vcmadmin

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/licensing"
)

// vcmJSON is a VCM as --json prints it. The feature word is a decimal number.
type vcmJSON struct {
	UUID             string            `json:"uuid"`
	Name             string            `json:"name"`
	ESN              string            `json:"esn"`
	ModuleID         string            `json:"module_id"`
	State            string            `json:"state"`
	Reason           string            `json:"reason,omitempty"`
	Autostart        bool              `json:"autostart"`
	RestrictStartup  bool              `json:"restrict_startup"`
	SerialCardreader bool              `json:"serial_cardreader"`
	Features         int64             `json:"features"`
	FeatureNames     string            `json:"feature_names"`
	IPAddress        string            `json:"ip_address"`
	DiskQuota        int64             `json:"disk_quota"`
	RequestKey       string            `json:"k_tenant_req"`
	Created          string            `json:"created"`
	Changed          string            `json:"changed"`
	Restarts         int32             `json:"restarts"`
	TestMode         bool              `json:"test_mode"`
	Endpoints        map[string]string `json:"endpoints"`
	IsolationLevel   string            `json:"isolation_level,omitempty"`
	Isolation        []controlJSON     `json:"isolation,omitempty"`
}

type controlJSON struct {
	Control string `json:"control"`
	Wanted  string `json:"wanted"`
	Got     string `json:"got"`
	Reason  string `json:"reason,omitempty"`
	Proof   string `json:"proof"`
}

func toJSON(v *orchestrator.Vcm) vcmJSON {
	p := v.Properties
	out := vcmJSON{
		UUID: v.Uuid, Name: p.Name, ESN: v.Esn, ModuleID: v.ModuleId, State: v.State, Reason: v.Reason,
		Autostart: p.Autostart, RestrictStartup: p.RestrictStartup, SerialCardreader: p.SerialCardreader,
		Features: p.Features, FeatureNames: licensing.Features(p.Features).String(), IPAddress: p.IpAddress,
		DiskQuota: p.DiskQuota, RequestKey: p.TenantRequestKey, Created: stamp(v.Created), Changed: stamp(v.Changed),
		Restarts: v.Restarts, TestMode: v.TestMode, Endpoints: map[string]string{}, IsolationLevel: v.IsolationLevel,
	}
	for _, e := range v.Endpoints {
		out.Endpoints[e.ServiceName] = e.Address
	}
	for _, i := range v.Isolation {
		out.Isolation = append(out.Isolation, controlJSON{i.Control, i.Wanted, i.Got, i.Reason, i.Proof})
	}
	return out
}

// pageWidth is how wide a table of sentences is.
const pageWidth = 120

// showVCM prints everything about one VCM for people.
func showVCM(w io.Writer, v *orchestrator.Vcm, isolation bool) error {
	p := v.Properties
	f := licensing.Features(p.Features)
	pairs := [][2]string{
		{"UUID", v.Uuid}, {"NAME", p.Name}, {"ESN", v.Esn}, {"MODULE ID", v.ModuleId}, {"STATE", v.State},
	}
	if v.Reason != "" {
		pairs = append(pairs, [2]string{"REASON", v.Reason})
	}
	pairs = append(pairs, [][2]string{
		{"AUTOSTART", strconv.FormatBool(p.Autostart)}, {"RESTRICT STARTUP", strconv.FormatBool(p.RestrictStartup)},
		{"SERIAL CARDREADER", strconv.FormatBool(p.SerialCardreader)},
		{"FEATURES", f.String()}, {"FEATURE WORD", f.Hex()},
		{"IP ADDRESS", p.IpAddress}, {"DISK QUOTA", size(p.DiskQuota)}, {"K_TENANT_REQ", p.TenantRequestKey},
		{"CREATED", stamp(v.Created)}, {"CHANGED", stamp(v.Changed)}, {"RESTARTS", strconv.Itoa(int(v.Restarts))},
	}...)
	for _, e := range v.Endpoints {
		pairs = append(pairs, [2]string{"SERVICE " + e.ServiceName, e.Address})
	}
	pairs = append(pairs, [2]string{"ISOLATION", orElse(v.IsolationLevel, "not started yet")})
	console.Fields(w, pairs...)
	if v.TestMode {
		_, _ = fmt.Fprintln(w, "WARNING: the HSM was in CTS test mode when this VCM started; its tokens are predictable and must not be sold")
	}
	if v.IsolationLevel == "process" {
		_, _ = fmt.Fprintln(w, "WARNING: this VCM is isolated as a process only; another tenant's process of the same user can reach it")
	}
	if !isolation {
		return nil
	}
	rows := make([][]string, len(v.Isolation))
	for i, c := range v.Isolation {
		rows[i] = []string{c.Control, c.Wanted, c.Got, c.Reason, c.Proof}
	}
	console.ProseTable(w, pageWidth, []string{"CONTROL", "WANTED", "GOT", "REASON", "PROOF"}, rows)
	return nil
}

func stamp(unix int64) string {
	if unix == 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// flags shows the properties that are set, for a table.
func flags(p *orchestrator.Properties) string {
	var set []string
	for name, on := range map[string]bool{"autostart": p.Autostart, "restrict-startup": p.RestrictStartup, "serial-cardreader": p.SerialCardreader} {
		if on {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return "-"
	}
	slices.Sort(set)
	return strings.Join(set, ",")
}
