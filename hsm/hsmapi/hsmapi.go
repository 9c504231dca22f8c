// Package hsmapi is the protocol of hsmd, the physical module, towards the two
// kinds of process that talk to it over internal/fdrpc:
//
//   - the orchestrator, on hsmd's unix socket (peer credentials checked):
//     partitions are created, opened for a process, destroyed;
//   - each vcmd, on a socket pair whose other end the orchestrator handed to
//     hsmd with MethodAttach: the partition's key comes down this channel and
//     no other, so that it never passes through the orchestrator. A unit that was
//     killed and is back takes its VCMs up on other channels, without a key.
//
// Methods and bodies are listed here, once, for both sides. Callers use Client
// (the orchestrator) and Channel (a vcmd) and write no method strings.
package hsmapi

import (
	"strings"
	"time"
)

// Methods that the orchestrator may call.
const (
	// MethodIdentity: nil -> Identity.
	MethodIdentity = "identity"
	// MethodCreate: CreatePartition -> Partition. Creating an existing UUID
	// with the same parameters answers the same partition (resumable).
	MethodCreate = "create"
	// MethodAttach: Attach with one descriptor, the module's end of the VCM's
	// device channel -> nil. hsmd serves the VCM methods on it from then on.
	MethodAttach = "attach"
	// MethodDestroy: Destroy -> nil. The wrapped key goes first. Destroying
	// what does not exist succeeds (resumable).
	MethodDestroy = "destroy"
	// MethodPartitions: List -> Page, in the order of UUIDs.
	MethodPartitions = "partitions"
	// MethodProtect: Protect -> Partition. Puts a partition's key under a
	// tenant's share, under another one, or under none.
	MethodProtect = "protect"
	// MethodSign: Sign -> Signature. SSHSIG by the unit key, namespace
	// restricted to those in SignNamespaces.
	MethodSign = "sign"
	// MethodCertifyHosts: CertifyHosts -> HostCertificates, for the platform's services.
	MethodCertifyHosts = "certify-hosts"
	// MethodTime: nil -> Time.
	MethodTime = "time"
	// MethodSetTime: SetTime -> Time.
	MethodSetTime = "set-time"
	// MethodFactory: nil -> nil. Factory state: every partition and all
	// provider data are destroyed; ESN, unit key and warrant (and with it the
	// factory features) stay. Refused while a partition is open.
	MethodFactory = "factory"
)

// Methods that a vcmd may call on its device channel.
const (
	// MethodOpen: nil -> Opened with one descriptor, the partition key (see
	// package keyfd). Once per channel, and for one channel at a time.
	MethodOpen = "open"
	// MethodResume: Resume -> Opened without Ticket. Instead of MethodOpen, on a
	// channel that was attached for it: a VCM whose unit went away and is back goes
	// on with the key it has.
	MethodResume = "resume"
	// MethodCounter: Counter -> Counter. Raises the partition's monotonic
	// counter to Value if that is higher, durably, and answers where it stands.
	MethodCounter = "counter"
	// MethodSignModule: SignModule -> Signature. SSHSIG by the unit key,
	// namespace NamespaceModule, over a text that begins with
	// ModulePrefix(the partition's module id).
	MethodSignModule = "sign-module"
	// MethodLease: Lease -> Leased. A share of the unit's rated capacity, in tokens.
	MethodLease = "lease"
	// MethodTime and MethodCertifyHosts as above; the certificates' principals are
	// always this partition's.
)

// Methods that hsmd may call on a device channel.
const (
	// MethodDismiss: nil -> nil. The unit is being switched off, or saw a tamper
	// event: the VCM is to end. A channel that ends without it can be resumed.
	MethodDismiss = "dismiss"
)

// KeySize is the length of a partition key in bytes.
const KeySize = 32

// SSHSIG namespaces of the unit key.
const (
	NamespaceVCMFile     = "tesserae-vcmfile"
	NamespacePlatformLog = "tesserae-platform-log"
	NamespaceModule      = "tesserae-sm-pubkey"
)

// SignNamespaces lists the SSHSIG namespaces MethodSign accepts.
func SignNamespaces() []string { return []string{NamespaceVCMFile, NamespacePlatformLog} }

// ModulePrefix is how a text must begin that the unit signs for the module.
func ModulePrefix(moduleID string) string { return "SM.PUBKEY.1;SMI" + moduleID + ";" }

// Identity is who the unit is.
type Identity struct {
	ESN        string `json:"esn"`        // electronic serial number, XXXX-XXXX-XXXX hex
	ModuleID   string `json:"moduleId"`   // 8 digits
	FirmwareID string `json:"firmwareId"` // 8 characters, STS64V..
	HardwareID string `json:"hardwareId"`
	UnitKey    string `json:"unitKey"` // authorized_keys form, Ed25519
	// EncryptionKey is the unit's X25519 key (base64) that a tenant's start
	// share is sealed to; see package tenantshare.
	EncryptionKey string `json:"encryptionKey"`
	// Warrant is the maker's signed statement over the lines above and the
	// factory features (package licensing/warrant); empty before the factory step.
	Warrant string `json:"warrant"`
	// MakerRoot is the key that signed Warrant, authorized_keys form. The
	// provider's licences must be signed by it; a tenant pins his own copy.
	MakerRoot string `json:"makerRoot"`
	TestMode  bool   `json:"testMode"` // CTS mode: the unit was started with it
	Tampered  bool   `json:"tampered"`
}

// CreatePartition asks for a partition.
type CreatePartition struct {
	UUID string `json:"uuid"`
	// ShareKey is the tenant's public share key from a request with
	// restrict-startup; empty for others. The partition key is also wrapped
	// under it, so that nobody opens the partition without the tenant's share.
	ShareKey string `json:"shareKey,omitempty"`
}

// Partition is one partition of the unit.
type Partition struct {
	UUID     string    `json:"uuid"`
	ModuleID string    `json:"moduleId"` // the virtual module's own, 8 digits, never reused
	Created  time.Time `json:"created"`
	Open     bool      `json:"open"`     // a vcmd holds the key
	ShareKey string    `json:"shareKey"` // the tenant's public share key; empty without restrict-startup
}

// List asks for the partitions after a UUID, the first ones for "".
type List struct {
	After string `json:"after"`
}

// PageSize is the largest number of partitions in a Page.
const PageSize = 256

// Page is a part of the list of partitions.
type Page struct {
	Partitions []Partition `json:"partitions"`
	More       bool        `json:"more"`
}

// Protect changes what a partition's key is wrapped under.
type Protect struct {
	UUID     string `json:"uuid"`
	ShareKey string `json:"shareKey"` // the new one; empty for none
	// Share opens the partition if it is protected now.
	Share []byte `json:"share,omitempty"`
}

// Attach names the partition whose channel is handed over.
type Attach struct {
	UUID string `json:"uuid"`
	// Share is the tenant's half of a restrict-startup partition's key, sealed
	// to the unit (package tenantshare); empty for others.
	Share []byte `json:"share,omitempty"`
	// Speed is the VCM's part of the unit's rated capacity.
	Speed Speed `json:"speed"`
	// Resume is for a VCM that has the key already. The channel gives it to nobody.
	Resume bool `json:"resume,omitempty"`
}

// Speed is a VCM's part of the unit's rated capacity, in tokens a second. The
// zero value is not limited.
type Speed struct {
	Guaranteed int `json:"guaranteed"`
	Ceiling    int `json:"ceiling"`
	Unit       int `json:"unit"` // the unit's rated capacity as licensed now
}

// Lease asks for capacity.
type Lease struct {
	Tokens int `json:"tokens"`
}

// Leased grants Tokens, possibly fewer than asked for and possibly 0; Retry is
// when to ask again for more, in milliseconds.
type Leased struct {
	Tokens int   `json:"tokens"`
	Retry  int64 `json:"retry"`
}

// Destroy names the partition to destroy.
type Destroy struct {
	UUID string `json:"uuid"`
}

// Sign asks for an SSHSIG signature by the unit key.
type Sign struct {
	Namespace string `json:"namespace"`
	Message   []byte `json:"message"`
}

// Signature is an armored SSHSIG.
type Signature struct {
	Armored string `json:"armored"`
}

// CertifyHosts asks for OpenSSH host certificates, MaxHosts at most: whoever has
// several services gets theirs in one call.
type CertifyHosts struct {
	Hosts []Host `json:"hosts"`
}

// MaxHosts is how many host keys are certified in one call.
const MaxHosts = 16

// Host is a service's host key.
type Host struct {
	Service string `json:"service"`
	Key     string `json:"key"` // authorized_keys form
}

// HostCertificates are OpenSSH host certificates in authorized_keys form, in the
// order of the question, signed by the unit key. The principal of each is
// Principal(ESN, partition or "", service).
type HostCertificates struct {
	Certificates []string `json:"certificates"`
}

// Principal is the name in a service's host certificate: "esn/service" on the
// platform, "esn/uuid/service" on a VCM, in lower case, because OpenSSH compares
// host names in lower case and could not recognise the host otherwise.
func Principal(esn, uuid, service string) string {
	name := esn + "/" + service
	if uuid != "" {
		name = esn + "/" + uuid + "/" + service
	}
	return strings.ToLower(name)
}

// Opened describes the partition to its vcmd; the key comes beside it.
type Opened struct {
	UUID     string    `json:"uuid"`
	ModuleID string    `json:"moduleId"`
	Identity Identity  `json:"identity"`
	Counter  uint64    `json:"counter"`
	Time     Time      `json:"time"`
	Created  time.Time `json:"created"`
	TestMode bool      `json:"testMode"` // CTS mode: the unit was started with it
	Speed    Speed     `json:"speed"`
	// Ticket proves to this unit that it has opened the partition, as it is protected
	// now, to who has it.
	Ticket []byte `json:"ticket,omitempty"`
}

// Resume shows the ticket of an earlier MethodOpen.
type Resume struct {
	Ticket []byte `json:"ticket"`
}

// SignModule asks for a signature over a module's public key record.
type SignModule struct {
	Text string `json:"text"`
}

// Counter is a monotonic counter's value.
type Counter struct {
	Value uint64 `json:"value"`
}

// Time is the module's clock and the host's, read together.
type Time struct {
	Module time.Time `json:"module"`
	Host   time.Time `json:"host"`
}

// Offset is what must be added to the host's clock to get the module's.
func (t Time) Offset() time.Duration { return t.Module.Sub(t.Host) }

// SetTime sets the module's clock. With Adjust the clock approaches Time
// gradually and never jumps; without, it jumps, which is refused while a
// partition is open.
type SetTime struct {
	Time   time.Time `json:"time"`
	Adjust bool      `json:"adjust"`
}
