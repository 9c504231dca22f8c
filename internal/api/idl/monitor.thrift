# The monitor service: a VCM's (or the platform's) signed logs and statistics.
include "failure.thrift"
namespace go monitor

struct EnvStats {
  1: required i64 systemTime,           # Unix seconds, module clock
  2: required i64 uptimeSeconds,
  3: required i64 memUsed,
  4: required i64 diskUsed,
  5: required double cpuSeconds
}

struct LogExport {
  1: required i64 firstSeq,
  2: required i64 lastSeq,              # inclusive; last < first: nothing to export
  3: required binary text,              # signed text file, docs beside internal/auditlog
  4: required bool more
}

service Monitor {
  EnvStats envStats() throws (1: failure.Failure f),
  LogExport logExport(1: required i64 fromSeq, 2: required bool saved) throws (1: failure.Failure f),
  i64 logExpire(1: required i64 seq) throws (1: failure.Failure f),               # entries removed
  string logKey() throws (1: failure.Failure f)                                   # the verification key, certified by the unit
}
