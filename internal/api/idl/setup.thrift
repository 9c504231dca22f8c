# The platform's setup service: what the unit is, its licences and its network.
include "failure.thrift"
namespace go setup

struct Info {
  1: required string esn,
  2: required string moduleId,
  3: required string firmwareId,
  4: required string hardwareId,
  5: required string mode,              # factory, operational; ", CTS test mode" after it
  6: required i64 features,
  7: required i32 maxCreatableVcms,
  8: required i32 maxActiveVcms,
  9: required i32 createdVcms,
  10: required i32 activeVcms,
  11: required i64 moduleTime,          # Unix seconds
  12: required i64 hostTime,            # Unix seconds
  13: required string network,          # CIDR
  14: required string staTables,        # name of the STA tables that every VCM begins with; its tenant may load others
  15: required string version
}

struct LicenceResult {
  1: required string type,
  2: required string value,
  3: required list<string> warnings
}

struct Network {
  1: required string kind,              # default, ipv4static, ipv6static
  2: required string address,           # CIDR
  3: required string gateway
}

struct Clocks {
  1: required i64 moduleTime,           # Unix seconds
  2: required i64 hostTime              # Unix seconds
}

service Setup {
  Info info() throws (1: failure.Failure f),
  LicenceResult applyLicence(1: required binary licence) throws (1: failure.Failure f),
  void setNetwork(1: required Network network) throws (1: failure.Failure f),    # effective after reset
  # Every VCM is stopped; those with autostart start again. Refused while a
  # tenant's service is operational.
  void reset() throws (1: failure.Failure f),
  # With adjust the module's clock approaches the time and never jumps; without
  # it jumps, which needs every VCM stopped.
  Clocks setTime(1: required i64 unixSeconds, 2: required bool adjust) throws (1: failure.Failure f),
  # Destroys every VCM, client key, licence and network setting; then resets.
  # ESN, warrant, factory features and the audit log stay. Needs every VCM stopped.
  void factoryState() throws (1: failure.Failure f)
}
