# How every administrative service reports a failure.
namespace go failure

# kind is one of internal/errkind's names; message says what was wrong, where,
# and what to do. Nothing internal to the service is in it.
exception Failure {
  1: required string kind,
  2: required string message
}
