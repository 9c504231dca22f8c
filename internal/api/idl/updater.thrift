# The platform's updater service: which firmware runs.
include "failure.thrift"
namespace go updater

struct Firmware {
  1: required string firmwareId,
  2: required string hardwareId,
  3: required string version            # of the platform's software
}

service Updater {
  Firmware info() throws (1: failure.Failure f),
  void upgrade(1: required binary image) throws (1: failure.Failure f)           # not in this mode
}
