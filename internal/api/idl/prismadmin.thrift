# The prismtoken service of a VCM over SSH: its tenant administers users,
# preferences, KMC keys, vending keys and certificates. Used by ptokenadmin.
# Times are Unix seconds, UTC; 0 is "never".
include "failure.thrift"
namespace go prismadmin

struct User {
  1: required string username,          # IDENT, 1..40 characters
  2: required list<string> roles,
  3: required bool passwordSet,
  4: required bool disabled,
  5: required bool locked,
  6: required i64 accountExpires,
  7: required i64 passwordExpires,
  8: required i64 lastSignIn,
  9: required i32 failedSignIns
}

struct UserChange {                     # an absent field stays as it is
  1: optional list<string> roles,
  2: optional bool disabled,
  3: optional i64 accountExpires,
  4: optional bool unlock
}

struct Preference {
  1: required string name,
  2: required string value,
  3: required string defaultValue,
  4: required string type,              # bool, int, string, enum
  5: required string range,
  6: required string description,
  7: required string changeableBy       # role
}

struct KekSlot {
  1: required string kmc,
  2: required i32 kpn,
  3: required string state,             # ACTIVE, PENDING, LOADING
  4: required bool requestOutstanding,
  5: required string tvp,               # of the newest VKLOADREQ, CCYYMMDDhhmmss, or empty
  6: required i64 keyActivates,
  7: required i64 keyExpires,
  8: required bool approved,
  9: required i32 registersLoaded,
  10: required i32 keysInKlf,
  11: required bool inModule            # false: only the public key is stored, no KEK slot yet
}

struct VendingKey {
  1: required i32 sgc,
  2: required i32 krn,
  3: required string kmc,
  4: required i32 registerNumber,            # 0: known from the KLF, not in the module
  5: required map<string,string> attributes,   # by dfconcat tag, as SM?GA gives them
  6: required string vendReason         # why VND is 0, or empty
}

struct LoadProgress {
  1: required i32 loaded,               # in this call
  2: required i32 remaining,            # announced by the KLF, not yet loaded
  3: required string failure            # empty, or the text that ended the loading
}

struct Status {
  1: required map<string,string> info,
  2: required list<string> alerts       # "CODE text"
}

struct TokenEndpoint {
  1: required string address,
  2: required string certificatePem,
  3: required string sha256,
  4: required i64 notAfter
}

# Who says which KMC public keys are genuine.
struct Approvals {
  1: required string rootPem,           # the pinned approval root, or empty
  2: required string rootSha256,        # of its DER form, hex
  3: required string issuer,            # of the newest list, or empty
  4: required i64 date,
  5: required list<string> keys         # "KMC key number" that the list approves
}

# The Conductor: the low-level API of the security module on TCP.
struct Conductor {
  1: required string address,
  2: required i32 sockets,              # open now
  3: required i32 maxSockets,           # preference conductor.maxSockets
  4: required i32 sshSessions,          # of the SSH service conductor, open now
  5: required string traceLevel,        # preference conductor.traceLevel
  6: required i64 started,              # or restarted
  7: required i32 restarts,
  8: required i64 accepted,
  9: required i64 refused,              # too many sockets
  10: required i64 commands
}

# In maintenance mode the VCM issues no tokens and the provider may stop it.
struct Maintenance {
  1: required bool on,
  2: required i64 since,                # 0: never changed
  3: required string changedBy
}

struct Role {
  1: required string name,
  2: required string description
}

struct Amendment {
  1: required i32 toSgc,
  2: required i16 toKrn,
  3: required i16 toTi
}

struct Meter {
  1: required string drn,               # 11 or 13 digits, or an 18-digit PAN
  2: required i16 ea,                   # 7 or 11
  3: required i16 tct,
  4: required i32 sgc,
  5: required i16 krn,
  6: required i16 ti,
  7: required i16 ken,
  8: optional string doe = "0000",      # YYMM
  9: optional bool allowKrnUpdate = true,
  10: optional bool allowKenUpdate = true,
  11: optional bool allow3Kct = false,
  12: optional Amendment newConfig
}

struct TokenRequest {
  1: required string messageId,         # IDENT; tokenFetch finds the result by it
  2: required Meter meter,
  3: required i16 subclass,
  4: required double amount,            # as transferAmount of the TokenApi
  5: optional i64 tokenTime = 0,
  6: optional i64 flags = 0
}

struct Advice {
  1: required i32 toSgc,
  2: required i16 toKrn,
  3: required i16 toTi,
  4: required i16 toKen,
  5: required string idRecord,
  6: required string record2,
  7: required bool rollover,
  8: required string toVkKcv
}

struct Token {
  1: required string drn,
  2: required string pan,
  3: required i16 ea,
  4: required i16 tct,
  5: required i32 sgc,
  6: required i16 krn,
  7: required i16 ti,
  8: required i16 tokenClass,
  9: required i16 subclass,
  10: required i32 tid,
  11: required double amount,
  12: required bool isReservedTid,
  13: optional Advice newConfig,
  14: required string description,
  15: required string stsUnitName,
  16: required string scaledAmount,
  17: required string scaledUnitName,
  18: required string tokenDec,
  19: required string tokenHex,
  20: required string idSm,
  21: required string vkKcv
}

struct MeterTest {
  1: required string drn,
  2: required string pan,
  3: required i16 subclass,
  4: required i64 control,
  5: required i16 mfrcode,
  6: required string description,
  7: required string tokenDec,
  8: required string tokenHex
}

struct Verification {
  1: required string result,            # EVerify.Ok and so on
  2: required string text,
  3: optional Token token,
  4: optional MeterTest meterTest
}

service PrismAdmin {
  Status status() throws (1: failure.Failure f),

  list<User> userList() throws (1: failure.Failure f),
  User userShow(1: required string username) throws (1: failure.Failure f),
  # Without a password the user cannot sign in yet; accountExpires 0 is the preferred lifetime of accounts.
  User userCreate(1: required string username, 2: required list<string> roles, 3: required string password,
      4: required i64 accountExpires) throws (1: failure.Failure f),
  User userChange(1: required string username, 2: required UserChange change) throws (1: failure.Failure f),
  void userSetPassword(1: required string username, 2: required string password) throws (1: failure.Failure f),
  void userDelete(1: required string username) throws (1: failure.Failure f),

  list<Preference> prefList(1: required string prefix) throws (1: failure.Failure f),
  Preference prefSet(1: required string name, 2: required string value) throws (1: failure.Failure f),

  KekSlot kmcUploadKey(1: required string text) throws (1: failure.Failure f),
  list<KekSlot> kmcList() throws (1: failure.Failure f),
  string kmcGenerateRequest(1: required string kmc) throws (1: failure.Failure f),
  string kmcFetchRequest(1: required string kmc) throws (1: failure.Failure f),
  KekSlot kmcUploadKlf(1: required string text) throws (1: failure.Failure f),
  # Loads at most max keys, so that a caller can show progress; call again while remaining > 0.
  LoadProgress kmcLoad(1: required string kmc, 2: required i32 max) throws (1: failure.Failure f),
  KekSlot kmcEndSession(1: required string kmc) throws (1: failure.Failure f),
  i32 kmcDeleteSlot(1: required string kmc) throws (1: failure.Failure f),       # registers erased

  # Which KMC keys are approved. An empty root removes it; the list of another root goes with it.
  Approvals kmcApprovals() throws (1: failure.Failure f),
  Approvals kmcPinRoot(1: required string rootPem) throws (1: failure.Failure f),
  Approvals kmcUploadApprovals(1: required string text) throws (1: failure.Failure f),

  list<VendingKey> vkList(1: required bool all) throws (1: failure.Failure f),   # false: only those in the module
  VendingKey vkShow(1: required i32 sgc, 2: required i32 krn) throws (1: failure.Failure f),
  VendingKey vkLoad(1: required i32 sgc, 2: required i32 krn) throws (1: failure.Failure f),
  void vkDelete(1: required i32 sgc, 2: required i32 krn) throws (1: failure.Failure f),

  string smPublicKey() throws (1: failure.Failure f),           # SM.PUBKEY.1 for the KMC, signed by the unit
  # STA tables (JSON: sub0, sub1, perm) under a name; answers the SHA-256 of the set now in use.
  string smLoadTables(1: required string name, 2: required string tables) throws (1: failure.Failure f),
  Status smStatus() throws (1: failure.Failure f),
  string licenseLoad(1: required string text) throws (1: failure.Failure f),

  Conductor conductorShow() throws (1: failure.Failure f),
  # Ends every socket and SSH session after the command under way; the module is not touched.
  Conductor conductorRestart() throws (1: failure.Failure f),

  Maintenance maintenanceShow() throws (1: failure.Failure f),
  Maintenance maintenanceSet(1: required bool on) throws (1: failure.Failure f),

  TokenEndpoint tokenEndpoint() throws (1: failure.Failure f),
  TokenEndpoint tlsGenerate() throws (1: failure.Failure f),                      # a new self-signed certificate
  TokenEndpoint tlsImport(1: required string chainPem, 2: required string keyPem) throws (1: failure.Failure f),

  list<Role> roleList() throws (1: failure.Failure f),

  # Tokens, issued by the holder of this service's key and not by a user; the
  # last one of a list is the one that was asked for.
  list<Token> tokenCredit(1: required TokenRequest request) throws (1: failure.Failure f),
  list<Token> tokenManagement(1: required TokenRequest request) throws (1: failure.Failure f),
  list<Token> tokenKeyChange(1: required string messageId, 2: required Meter meter, 3: required Amendment to)
      throws (1: failure.Failure f),
  MeterTest tokenMeterTest(1: required i16 subclass, 2: required i64 control, 3: required i16 mfrcode)
      throws (1: failure.Failure f),
  Verification tokenVerify(1: required Meter meter, 2: required string tokenDec) throws (1: failure.Failure f),
  list<Token> tokenFetch(1: required string messageId) throws (1: failure.Failure f)
}
