<?php
// Issues one electricity credit token and prints what the meter has to be given.
// If the answer is lost on the way it asks for it again.
//
// php vend.php HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT

// Your autoloader finds the library Thrift\ (composer: apache/thrift) and the code
// made by: thrift --gen php prismtoken1-TokenApi.thrift
require getenv('VEND_AUTOLOAD') ?: __DIR__ . '/vendor/autoload.php';

use Prism\PrismToken1\ApiException;
use Prism\PrismToken1\MeterConfigIn;
use Prism\PrismToken1\SessionOptions;
use Prism\PrismToken1\TokenApiClient;
use Thrift\Exception\TTransportException;
use Thrift\Protocol\TBinaryProtocol;
use Thrift\Transport\TFramedTransport;
use Thrift\Transport\TSocket;

// The library's socket over TLS, with the certificate and its name checked.
class CheckedSocket extends TSocket
{
    private string $address;
    private array $tls;

    public function __construct(string $address, string $ca)
    {
        parent::__construct('', 0);
        $this->address = $address;
        $this->tls = ['cafile' => $ca, 'verify_peer' => true, 'verify_peer_name' => true];
    }

    public function open()
    {
        $context = stream_context_create(['ssl' => $this->tls]);
        $this->handle_ = @stream_socket_client('tls://' . $this->address, $code, $text, 10, STREAM_CLIENT_CONNECT, $context);
        if ($this->handle_ === false) {
            throw new TTransportException("cannot connect to {$this->address}: $text", TTransportException::NOT_OPEN);
        }
        stream_set_timeout($this->handle_, 15);
    }
}

function id(): string
{
    return bin2hex(random_bytes(16));
}

// session connects, signs in and calls $do(client, access token).
function session(array $server, callable $do)
{
    [$address, $ca, $user, $password] = $server;
    $socket = new CheckedSocket($address, $ca);
    $socket->setSendTimeout(15000);
    $socket->setRecvTimeout(15000);
    $transport = new TFramedTransport($socket);
    $transport->open();
    try {
        $client = new TokenApiClient(new TBinaryProtocol($transport, true, true));
        $options = new SessionOptions(['version' => '1.1']);
        return $do($client, $client->signInWithPassword(id(), 'local', $user, $password, $options)->accessToken);
    } finally {
        $transport->close();
    }
}

// credit returns the tokens; an answer that says no is an ApiException.
function credit(array $server, MeterConfigIn $meter, float $amount): array
{
    // One new identifier for each vend, written down before the call.
    $messageId = id();
    $lost = null;
    $tokens = session($server, function ($api, $access) use ($messageId, $meter, $amount, &$lost) {
        try {
            return $api->issueCreditToken($messageId, $access, $meter, 0, $amount, 0, 0);
        } catch (TTransportException $e) {
            $lost = $e;
        }
    });
    // If the connection broke, only the server knows whether it had issued.
    for ($i = 0; $lost !== null && $i < 10; $i++) {
        sleep(1);
        try {
            return session($server, function ($api, $access) use ($messageId) {
                fwrite(STDERR, "connected again, fetching $messageId\n");
                // ECacheMiss: nothing was issued, vend anew.
                return $api->fetchTokenResult(id(), $access, $messageId);
            });
        } catch (TTransportException $e) {
            $lost = $e;
        }
    }
    if ($lost !== null) {
        throw new RuntimeException("vend $messageId has an unknown outcome, fetch it later", 0, $lost);
    }
    return $tokens;
}

if ($argc !== 11) {
    fwrite(STDERR, "usage: php vend.php HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT\n");
    exit(2);
}
[, $address, $ca, $user, $passwordFile, $drn, $ea, $sgc, $krn, $ti, $amount] = $argv;
$password = rtrim(strtok(file_get_contents($passwordFile), "\n"), "\r");
$meter = new MeterConfigIn([
    'drn' => $drn, 'ea' => (int) $ea, 'tct' => 2, 'sgc' => (int) $sgc, 'krn' => (int) $krn, 'ti' => (int) $ti, 'ken' => 255,
]);
try {
    foreach (credit([$address, $ca, $user, $password], $meter, (float) $amount) as $t) {
        // Key change tokens come first; keep the order.
        echo "$t->tokenDec $t->description $t->scaledAmount $t->scaledUnitName\n";
    }
} catch (ApiException $e) {
    fwrite(STDERR, "$e->eCode: $e->eMsgEn\n");
    exit(3);
}
