<?php
// Walks through TokenApi with Apache Thrift's PHP library.
//
// Usage: php walk.php PLAN THRIFT GENERATED. PLAN is a file of key=value lines,
// THRIFT the folder of the library (with Transport/ in it), GENERATED that of the
// generated code. Each step is printed as one line of JSON.

use Prism\PrismToken1\ApiException;
use Prism\PrismToken1\MeterConfigAmendment;
use Prism\PrismToken1\MeterConfigIn;
use Prism\PrismToken1\SessionOptions;
use Prism\PrismToken1\TokenApiClient;
use Thrift\Exception\TTransportException;
use Thrift\Protocol\TBinaryProtocol;
use Thrift\Transport\TFramedTransport;
use Thrift\Transport\TSocket;

error_reporting(E_ALL & ~E_DEPRECATED);

spl_autoload_register(function ($class) use ($argv) {
    $path = str_replace('\\', '/', $class) . '.php';
    $file = str_starts_with($path, 'Thrift/') ? $argv[2] . '/' . substr($path, 7) : $argv[3] . '/' . $path;
    if (is_file($file)) {
        require_once $file;
    }
});

$plan = [];
foreach (file($argv[1], FILE_IGNORE_NEW_LINES) as $line) {
    [$key, $value] = explode('=', $line, 2) + [1 => ''];
    $plan[$key] = $value;
}
$password = rtrim(explode("\n", file_get_contents($plan['passwordFile']))[0], "\r");

// The library's socket, over TLS. The certificate must be the one of the file or
// chain to it; the server does not know its own name.
class CheckedSocket extends TSocket
{
    public function __construct(private array $plan)
    {
        parent::__construct($plan['host'], (int) $plan['port']);
    }

    public function open()
    {
        $context = stream_context_create(['ssl' => [
            'cafile' => $this->plan['ca'], 'verify_peer' => true, 'verify_peer_name' => false, 'allow_self_signed' => false,
        ]]);
        $address = 'tlsv1.2://' . $this->plan['host'] . ':' . $this->plan['port'];
        $this->handle_ = @stream_socket_client($address, $errno, $text, 15, STREAM_CLIENT_CONNECT, $context);
        if ($this->handle_ === false) {
            throw new TTransportException("cannot connect to $address: $text", TTransportException::NOT_OPEN);
        }
        stream_set_timeout($this->handle_, 15);
    }
}

function connect(array $plan): array
{
    $socket = new CheckedSocket($plan);
    $socket->setSendTimeout(15000);
    $socket->setRecvTimeout(15000);
    $transport = new TFramedTransport($socket);
    $transport->open();
    return [new TokenApiClient(new TBinaryProtocol($transport, true, true)), $transport];
}

$failed = false;
function step(string $name, callable $call): void
{
    global $failed;
    $line = ['step' => $name, 'ok' => false];
    try {
        $detail = $call();
        if (is_array($detail)) {
            [$detail, $line['tokens']] = $detail;
        }
        $line['ok'] = true;
        $line['detail'] = $detail;
    } catch (ApiException $e) {
        $line['detail'] = $e->eCode . ': ' . $e->eMsgEn;
    } catch (Throwable $e) {
        $line['detail'] = get_class($e) . ': ' . $e->getMessage();
    }
    $failed = $failed || !$line['ok'];
    echo json_encode($line, JSON_UNESCAPED_UNICODE), "\n";
}

function expect(bool $condition, string $text): void
{
    if (!$condition) {
        throw new RuntimeException($text);
    }
}

function refused(string $code, callable $call): string
{
    try {
        $call();
    } catch (ApiException $e) {
        if (str_starts_with($e->eCode, $code)) {
            return $e->eCode;
        }
        throw $e;
    }
    throw new RuntimeException("no exception, expected $code");
}

function digits(array $tokens): array
{
    return array_map(function ($t) {
        expect(preg_match('/^[0-9]{20}$/', $t->tokenDec) === 1 && strlen($t->tokenHex) === 17, 'token form');
        return $t->tokenDec;
    }, $tokens);
}

function meter(array $plan, string $drn, int $ea): MeterConfigIn
{
    return new MeterConfigIn(['drn' => $drn, 'ea' => $ea, 'tct' => 2, 'sgc' => (int) $plan['sgc'], 'krn' => (int) $plan['krn'],
        'ti' => (int) $plan['ti'], 'ken' => (int) $plan['ken'], 'allowKrnUpdate' => false, 'allowKenUpdate' => false]);
}

function messageId(): string
{
    static $n = 0;
    return sprintf('php-%d-%d', hrtime(true), ++$n);
}

[$api, $transport] = connect($plan);
$m11 = meter($plan, $plan['drn11'], 11);
$m07 = meter($plan, $plan['drn07'], 7);
$to = new MeterConfigAmendment(['toSgc' => (int) $plan['toSgc'], 'toKrn' => (int) $plan['toKrn'], 'toTi' => (int) $plan['toTi']]);
$token = '';
$credit = [];
$creditId = '';

step('ping', function () use ($api) {
    $echo = 'Grüße, world';
    expect($api->ping(0, $echo) === $echo, 'echo differs');
    return $echo;
});
step('signInWrongPassword', fn () => refused('ESignin.', fn () => $api->signInWithPassword(
    messageId(), 'local', $plan['user'], 'not-' . substr($password, 0, 40), new SessionOptions())));
step('signIn', function () use ($api, $plan, $password, &$token) {
    $token = $api->signInWithPassword(messageId(), 'local', $plan['user'], $password, new SessionOptions(['version' => '1.0']))->accessToken;
    expect($token !== '', 'no access token');
    return 'signed in';
});
step('status', function () use ($api, &$token) {
    $nodes = $api->getStatus(messageId(), $token);
    expect(count($nodes) > 0 && is_array($nodes[0]->alerts), 'no node');
    return count($nodes) . ' node(s), ' . count($nodes[0]->info) . ' key(s)';
});
foreach (['credit11' => $m11, 'credit07' => $m07] as $name => $m) {
    step($name, function () use ($api, $m, &$token, &$credit, &$creditId) {
        $creditId = messageId();
        $credit = $api->issueCreditToken($creditId, $token, $m, 0, 102.0, 0, 0);
        $last = end($credit);
        expect($last->tokenClass === 0 && $last->transferAmount === 102.0, 'not the credit asked for');
        return [$last->scaledAmount . ' ' . $last->scaledUnitName, digits($credit)];
    });
}
step('verify', function () use ($api, $m07, &$token, &$credit) {
    $want = end($credit);
    $r = $api->verifyToken(messageId(), $token, $m07, $want->tokenDec);
    expect($r->validationResult === 'EVerify.Ok' && $r->token !== null, $r->validationResult);
    expect($r->token->tid === $want->tid && $r->token->transferAmount === $want->transferAmount, 'another token');
    return $r->validationResult;
});
step('engineering', function () use ($api, $m11, &$token) {
    $tokens = $api->issueMseToken(messageId(), $token, $m11, 0, 5000.0, 0, 0);
    $last = end($tokens);
    expect($last->tokenClass === 2 && $last->subclass === 0, 'not a power limit');
    return [$last->description, digits($tokens)];
});
step('control', function () use ($api, $m11, &$token) {
    $tokens = $api->issueSetControlToken(messageId(), $token, $m11, true, 0, 1, 0, 0);
    $last = end($tokens);
    expect($last->tokenClass === 2 && $last->subclass === 10, 'not an extended token');
    return [$last->description, digits($tokens)];
});
foreach (['keyChange11' => [$m11, 4], 'keyChange07' => [$m07, 2]] as $name => [$m, $count]) {
    step($name, function () use ($api, $m, $count, $to, &$token) {
        $tokens = $api->issueKeyChangeTokens(messageId(), $token, $m, $to);
        expect(count($tokens) === $count, count($tokens) . ' tokens');
        expect($tokens[0]->newConfig !== null && $tokens[0]->newConfig->toSgc === $to->toSgc, 'no advice on the first');
        foreach (array_slice($tokens, 1) as $t) {
            expect($t->newConfig === null, 'advice on another than the first');
        }
        return ["$count sections", digits($tokens)];
    });
}
step('test', function () use ($api, &$token) {
    $t = $api->issueMeterTestToken(messageId(), $token, 0, 0, 0);
    expect($t->tokenDec === '00000000000134220736', $t->tokenDec);
    return [$t->description, [$t->tokenDec]];
});
// Another connection with the same access token.
$transport->close();
[$api, $transport] = connect($plan);
step('fetch', function () use ($api, &$token, &$credit, &$creditId) {
    expect($api->fetchTokenResult(messageId(), $token, $creditId) == $credit, 'another list');
    return 'the same list';
});
step('fetchMissing', fn () => refused('ECacheMiss', fn () => $api->fetchTokenResult(messageId(), $token, 'never-' . messageId())));
step('badToken', fn () => refused('EAuthentication.Token', fn () => $api->getStatus(messageId(), 'nonsense')));
$transport->close();
exit($failed ? 1 : 0);
