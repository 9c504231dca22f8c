# The sshadmin service of the platform and of a VCM: which client key may use
# which service. One authorised key a service.
include "failure.thrift"
namespace go sshadmin

struct ServiceKey {
  1: required string serviceName,
  2: required string address,           # host:port the service listens on
  3: required string hostKey,           # authorized_keys form, a host certificate where there is one
  4: required string clientKey,         # authorized_keys form; empty: nobody may use the service
  5: required i64 installed             # Unix seconds; 0: never
}

struct ClientKey {
  1: required string serviceName,
  2: required string clientKey          # authorized_keys form
}

service SshAdmin {
  list<ServiceKey> showKeys() throws (1: failure.Failure f),
  # All or nothing, durable before it returns. Changing sshadmin's own key ends
  # the rights of the key that asked, from the next connection on.
  list<ServiceKey> installKeys(1: required list<ClientKey> keys) throws (1: failure.Failure f)
}
