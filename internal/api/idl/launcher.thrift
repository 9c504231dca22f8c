# The platform's launcher service: applications on the HSM itself, which a
# multi-tenant system does not run. Every call is refused.
include "failure.thrift"
namespace go launcher

service Launcher {
  void launch(1: required binary image) throws (1: failure.Failure f)
}
