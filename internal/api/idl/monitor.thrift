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
  # Without saved: fromSeq 0 is the first entry that was not exported yet, an
  # exported one is refused. With saved: from fromSeq or the oldest entry that is
  # still here. While more, call again with fromSeq = lastSeq + 1.
  LogExport logExport(1: required i64 fromSeq, 2: required bool saved) throws (1: failure.Failure f),
  # Removes the entries up to and including seq, which were exported; answers how many.
  i64 logExpire(1: required i64 seq) throws (1: failure.Failure f),
  string logKey() throws (1: failure.Failure f)   # the verification key, certified by the unit
}
