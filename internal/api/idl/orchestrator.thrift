# The platform's orchestrator service: the provider manages VCMs.
# Times are Unix seconds, UTC, of the module's clock. Sizes are bytes.
include "failure.thrift"
namespace go orchestrator

struct Properties {
  1: required string name,              # 0..64 printable ASCII characters
  2: required bool autostart,
  3: required bool restrictStartup,
  4: required bool serialCardreader,
  5: required i64 features,             # 32-bit feature word
  6: required string ipAddress,
  7: required i64 diskQuota,
  8: required string tenantRequestKey   # authorized_keys form
}

# One outcome of an isolation control, proven by an attempt inside the sandbox.
struct IsolationControl {
  1: required string control,
  2: required string wanted,
  3: required string got,
  4: required string reason,
  5: required string proof
}

struct Endpoint {
  1: required string serviceName,           # sshadmin, monitor, prismtoken, conductor, tokenapi, smapi, tsmweb
  2: required string address            # host:port
}

struct Vcm {
  1: required string uuid,
  2: required string esn,
  3: required string state,             # created, starting, running, stopping, stopped, failed, deleting
  4: required Properties properties,
  5: required i64 created,
  6: required i64 changed,
  7: required string reason,            # why it failed, or empty
  8: required list<Endpoint> endpoints,
  9: required string isolationLevel,    # full, rootless, landlock, process; empty until first started
  10: required list<IsolationControl> isolation,
  11: required string moduleId,
  12: required i32 restarts,
  13: required bool testMode            # CTS test mode at its last start: its tokens must not be sold
}

struct VcmStats {
  1: required string uuid,
  2: required string esn,
  3: required string state,
  4: required i64 sampled,              # Unix milliseconds
  5: required i64 memory,
  6: required i64 disk,
  7: required i64 diskQuota,
  8: required double cpuSeconds,
  9: required i64 requests,
  10: required i64 tokens,
  11: required i64 connections,
  12: required i64 uptimeSeconds
}

# What the provider chose at creation; an absent field takes the tenant's wish.
struct CreateChoices {
  1: required string name,
  2: optional bool autostart,
  3: optional bool serialCardreader,
  4: optional i64 features,
  5: optional string ipAddress
}

struct Created {
  1: required Vcm vcm,
  2: required binary vcmFile            # the configuration file for the tenant, signed by the unit
}

struct PropertyInfo {
  1: required string name,
  2: required string values,
  3: required string description
}

service Orchestrator {
  Created create(1: required binary request, 2: required CreateChoices choices) throws (1: failure.Failure f),
  Vcm start(1: required string uuid, 2: required binary request, 3: required i32 timeoutSeconds) throws (1: failure.Failure f),
  Vcm stop(1: required string uuid, 2: required bool force, 3: required i32 timeoutSeconds) throws (1: failure.Failure f),
  list<Vcm> listVcms(1: required bool activeOnly) throws (1: failure.Failure f),
  Vcm show(1: required string uuid) throws (1: failure.Failure f),
  void remove(1: required string uuid, 2: required bool force) throws (1: failure.Failure f),
  list<VcmStats> stats(1: required string uuid) throws (1: failure.Failure f),   # empty uuid: all
  Vcm setProperty(1: required binary request, 2: required string uuid, 3: required string property, 4: required string value)
      throws (1: failure.Failure f),
  list<PropertyInfo> listProperties() throws (1: failure.Failure f),
  binary vcmFile(1: required string uuid) throws (1: failure.Failure f)          # the file create returned, again
}
