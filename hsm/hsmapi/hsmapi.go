// Package hsmapi is the protocol of hsmd, the physical module, towards the two
// kinds of process that talk to it over internal/fdrpc:
//
//   - the orchestrator, on hsmd's unix socket (peer credentials checked):
//     partitions are created, opened for a process, destroyed;
//   - each vcmd, on a socket pair whose other end the orchestrator handed to
//     hsmd with MethodAttach: the partition's key comes down this channel and
//     no other, so that it never passes through the orchestrator.
//
// Methods and bodies are listed here, once, for both sides.
package hsmapi

import "time"

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
	// MethodPartitions: nil -> []Partition.
	MethodPartitions = "partitions"
	// MethodSign: Sign -> Signature. SSHSIG by the unit key, namespace
	// restricted to those in SignNamespaces.
	MethodSign = "sign"
	// MethodCertifyHost: CertifyHost -> HostCertificate, for the platform's services.
	MethodCertifyHost = "certify-host"
	// MethodTime: nil -> Time.
	MethodTime = "time"
)

// Methods that a vcmd may call on its device channel.
const (
	// MethodOpen: nil -> Opened with one descriptor, a sealed memfd of KeySize
	// bytes: the partition key. Once per channel.
	MethodOpen = "open"
	// MethodCounter: Counter -> Counter. Raises the partition's monotonic
	// counter to Value if that is higher, durably, and answers where it stands.
	MethodCounter = "counter"
	// MethodTime and MethodCertifyHost as above; the certificate's principal is
	// always this partition's.
)

// KeySize is the length of a partition key in bytes.
const KeySize = 32

// SignNamespaces lists the SSHSIG namespaces MethodSign accepts.
func SignNamespaces() []string { return []string{"tesserae-vcmfile", "tesserae-platform-log"} }

// Identity is who the unit is.
type Identity struct {
	ESN        string `json:"esn"`        // electronic serial number, XXXX-XXXX-XXXX hex
	ModuleID   string `json:"moduleId"`   // 8 digits
	FirmwareID string `json:"firmwareId"` // 8 characters, STS64V..
	HardwareID string `json:"hardwareId"`
	UnitKey    string `json:"unitKey"` // authorized_keys form, Ed25519
	Warrant    string `json:"warrant"` // the maker's signed statement over ESN and UnitKey; empty before the factory step
	Tampered   bool   `json:"tampered"`
}

// CreatePartition asks for a partition.
type CreatePartition struct {
	UUID string `json:"uuid"`
}

// Partition is one partition of the unit.
type Partition struct {
	UUID     string    `json:"uuid"`
	ModuleID string    `json:"moduleId"` // the virtual module's own, 8 digits, never reused
	Created  time.Time `json:"created"`
	Open     bool      `json:"open"` // a vcmd holds the key
}

// Attach names the partition whose channel is handed over.
type Attach struct {
	UUID string `json:"uuid"`
	// Share is the tenant's half of a restrict-startup partition's key, sealed
	// to the unit; empty for others.
	Share []byte `json:"share,omitempty"`
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

// CertifyHost asks for an OpenSSH host certificate.
type CertifyHost struct {
	Service string `json:"service"`
	Key     string `json:"key"` // authorized_keys form
}

// HostCertificate is an OpenSSH host certificate in authorized_keys form, signed
// by the unit key. Its principal is Principal(ESN, partition or "", service).
type HostCertificate struct {
	Certificate string `json:"certificate"`
}

// Principal is the name in a service's host certificate: "ESN/service" on the
// platform, "ESN/UUID/service" on a VCM.
func Principal(esn, uuid, service string) string {
	if uuid == "" {
		return esn + "/" + service
	}
	return esn + "/" + uuid + "/" + service
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
