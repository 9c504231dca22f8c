// Package vcmcontrol is the protocol between the orchestrator and one vcmd over
// their control socket (internal/fdrpc). The orchestrator calls; vcmd answers,
// and calls MethodReady or MethodFailed once after its start.
//
// The socket outlives an orchestrator that was killed: the process that made the
// vcmd holds the same end and gives it to the next one (see package launch). To
// vcmd that is one peer that was silent for a while. The ids of calls keep their
// answers apart.
//
// A vcmd is started without arguments and with an empty environment. Its
// descriptors are: 3 the control socket, 4 the device channel to hsmd, 5 its
// data directory, and from 6 on the listeners in the order of Start.Listeners.
package vcmcontrol

import "time"

// Descriptor numbers of a vcmd.
const (
	ControlFD       = 3
	DeviceFD        = 4
	DataDirFD       = 5
	FirstListenerFD = 6
)

// StartSlack is how late the timers of a vcmd may be from its making on to its first
// client.
const StartSlack = time.Millisecond

// Methods of the orchestrator towards vcmd.
const (
	// MethodStart: Start -> nil, first and once. vcmd builds its sandbox, opens
	// the partition, runs its self-tests and then calls MethodReady or MethodFailed.
	MethodStart = "start"
	// MethodStats: nil -> Stats.
	MethodStats = "stats"
	// MethodStop: Stop -> nil. vcmd drains, closes its store and exits 0. Called
	// again it changes nothing.
	MethodStop = "stop"
	// MethodMode: nil -> Mode.
	MethodMode = "mode"
	// MethodHello: nil -> Ready with the listeners as descriptors, in the order of
	// Start.Listeners. An orchestrator that takes the socket over calls it first:
	// whatever its predecessor was told or asked is over. The kind Unavailable
	// means that the VCM does not serve yet.
	MethodHello = "hello"
	// MethodDevice: nil -> nil, with one descriptor: another device channel, attached
	// to be resumed, for a VCM whose unit was away. After an error the VCM cannot go on.
	MethodDevice = "device"
)

// Methods of vcmd towards the orchestrator.
const (
	// MethodReady: Ready -> nil. Every listener is being served.
	MethodReady = "ready"
	// MethodFailed: Failed -> nil. vcmd exits after it.
	MethodFailed = "failed"
)

// Names of listeners.
const (
	ServiceSSHAdmin   = "sshadmin"   // SSH: keys of the services
	ServiceMonitor    = "monitor"    // SSH: logs, statistics
	ServicePrismToken = "prismtoken" // SSH: administration of users, preferences, keys
	ServiceConductor  = "conductor"  // SSH: the SM API
	ServiceTokenAPI   = "tokenapi"   // TLS: Thrift TokenApi
	ServiceSMAPI      = "smapi"      // TCP: the SM API
	ServiceTsmWeb     = "tsmweb"     // reserved for a web interface on port 8443; nothing listens there
)

// Listener is one inherited listening socket.
type Listener struct {
	Service string `json:"service"`
	Address string `json:"address"` // host:port, for certificates and reports
	FD      int    `json:"fd"`
}

// Start is everything a vcmd is told. It carries no secret.
type Start struct {
	UUID        string     `json:"uuid"`
	ESN         string     `json:"esn"`
	Name        string     `json:"name"`
	Features    uint32     `json:"features"`
	DiskQuota   int64      `json:"diskQuota"` // bytes
	Listeners   []Listener `json:"listeners"`
	SSHAdminKey string     `json:"sshAdminKey"` // authorized_keys form; used until the tenant installs another
	// Isolation is what the launcher set up; vcmd proves it by attempts.
	Isolation Isolation `json:"isolation"`
	LogLevel  string    `json:"logLevel"` // debug, info, warn, error
	// MemoryLimit is what the process may use, in bytes; its collector keeps
	// below it. 0: not limited.
	MemoryLimit int64 `json:"memoryLimit,omitempty"`
	// Processors is the set of those that the process may use, 64 a word, where it
	// was made on one of them: its first client has it use all. Empty: it was not.
	Processors []uint64 `json:"processors,omitempty"`
}

// Isolation is what the launcher was able to give the process.
type Isolation struct {
	Namespaces  []string `json:"namespaces"` // user, mnt, pid, net, ipc, uts
	DistinctUID bool     `json:"distinctUid"`
	Cgroup      string   `json:"cgroup"` // "", v1, v2
	Floor       string   `json:"floor"`  // full, rootless, landlock, process
	// Outside are the orchestrator's own namespaces, as the kernel names them,
	// by their names above, so that the VCM can tell its own from them.
	Outside map[string]string `json:"outside,omitempty"`
}

// Control is one isolation control as found by an attempt inside the sandbox.
type Control struct {
	Control string `json:"control"`
	Wanted  string `json:"wanted"`
	Got     string `json:"got"`
	Reason  string `json:"reason"`
	Proof   string `json:"proof"`
}

// Ready reports a started VCM.
type Ready struct {
	ModuleID string    `json:"moduleId"`
	Level    string    `json:"level"` // full, rootless, landlock, process
	Controls []Control `json:"controls"`
	Started  time.Time `json:"started"`
	TestMode bool      `json:"testMode,omitempty"` // the unit was started in CTS test mode
	// Away, with MethodHello: the VCM waits for another device channel.
	Away bool `json:"away,omitempty"`
}

// Failed reports why a VCM could not start.
type Failed struct {
	Kind   string `json:"kind"` // errkind name
	Reason string `json:"reason"`
	// Final means that trying again cannot help.
	Final bool `json:"final"`
}

// Stop asks a vcmd to end.
type Stop struct {
	// Force skips the refusal while the tenant's service is operational.
	Force bool `json:"force"`
	// Drain is how long requests in progress may take, in milliseconds.
	Drain int64 `json:"drain"`
}

// Mode is what the tenant's service is doing.
type Mode struct {
	Operational bool `json:"operational"` // the token service accepts vends
	// Finalised means that the tenant has exported the whole audit log; entries
	// about its export do not count.
	Finalised bool `json:"finalised"`
}

// Stats are a VCM's live figures.
type Stats struct {
	DiskUsed    int64   `json:"diskUsed"`
	CPUSeconds  float64 `json:"cpuSeconds"`
	Memory      int64   `json:"memory"` // resident, bytes
	Requests    int64   `json:"requests"`
	Tokens      int64   `json:"tokens"`
	Connections int64   `json:"connections"`
	Goroutines  int64   `json:"goroutines"`
	ReadOnly    bool    `json:"readOnly"` // over its disk quota
}
