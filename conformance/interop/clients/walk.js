// Walks through TokenApi with Apache Thrift's Node.js library.
//
// Usage: node walk.js PLAN GENERATED, with the package thrift on NODE_PATH. PLAN
// is a file of key=value lines. Each step is printed as one line of JSON.
'use strict';

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const thrift = require('thrift');

const TokenApi = require(path.resolve(process.argv[3], 'TokenApi.js'));
const types = require(path.resolve(process.argv[3], 'prismtoken1-TokenApi_types.js'));

const plan = Object.fromEntries(fs.readFileSync(process.argv[2], 'utf8').split('\n').filter((l) => l.includes('='))
  .map((l) => [l.slice(0, l.indexOf('=')), l.slice(l.indexOf('=') + 1)]));
const password = fs.readFileSync(plan.passwordFile, 'utf8').split(/\r?\n/)[0];

// The certificate must be the one of the file or chain to it; the server does not
// know its own name.
function connect() {
  const connection = thrift.createSSLConnection(plan.host, Number(plan.port), {
    transport: thrift.TFramedTransport,
    protocol: thrift.TBinaryProtocol,
    connect_timeout: 15000,
    timeout: 15000,
    ca: [fs.readFileSync(plan.ca)],
    rejectUnauthorized: true,
    checkServerIdentity: () => undefined,
  });
  return new Promise((resolve, reject) => {
    connection.on('error', reject);
    connection.on('connect', () => resolve({ connection, api: thrift.createClient(TokenApi, connection) }));
  });
}

let failed = false;
async function step(name, call) {
  const line = { step: name, ok: false };
  try {
    let detail = await call();
    if (Array.isArray(detail)) {
      [detail, line.tokens] = detail;
    }
    line.ok = true;
    line.detail = detail;
  } catch (e) {
    line.detail = e instanceof types.ApiException ? `${e.eCode}: ${e.eMsgEn}` : String(e);
    failed = true;
  }
  console.log(JSON.stringify(line));
}

async function refused(code, call) {
  try {
    await call();
  } catch (e) {
    if (e instanceof types.ApiException && e.eCode.startsWith(code)) {
      return e.eCode;
    }
    throw e;
  }
  throw new Error(`no exception, expected ${code}`);
}

function digits(tokens) {
  return tokens.map((t) => {
    assert(/^[0-9]{20}$/.test(t.tokenDec) && t.tokenHex.length === 17, 'token form');
    return t.tokenDec;
  });
}

const meter = (drn, ea) => new types.MeterConfigIn({
  drn, ea, tct: 2, sgc: Number(plan.sgc), krn: Number(plan.krn), ti: Number(plan.ti), ken: Number(plan.ken),
  allowKrnUpdate: false, allowKenUpdate: false,
});

let messages = 0;
const messageId = () => `node-${Date.now()}-${++messages}`;

async function main() {
  let { api, connection } = await connect();
  const m11 = meter(plan.drn11, 11);
  const m07 = meter(plan.drn07, 7);
  const to = new types.MeterConfigAmendment({ toSgc: Number(plan.toSgc), toKrn: Number(plan.toKrn), toTi: Number(plan.toTi) });
  let token = '';
  let credit = [];
  let creditId = '';

  await step('ping', async () => {
    const echo = 'Grüße, world';
    assert.strictEqual(await api.ping(0, echo), echo);
    return echo;
  });
  await step('signInWrongPassword', () => refused('ESignin.', () => api.signInWithPassword(
    messageId(), 'local', plan.user, `not-${password.slice(0, 40)}`, new types.SessionOptions({ version: '1.1' }))));
  await step('signIn', async () => {
    token = (await api.signInWithPassword(messageId(), 'local', plan.user, password, new types.SessionOptions({ version: '1.0' }))).accessToken;
    assert(token, 'no access token');
    return 'signed in';
  });
  await step('status', async () => {
    const nodes = await api.getStatus(messageId(), token);
    assert(nodes.length > 0 && Array.isArray(nodes[0].alerts), 'no node');
    return `${nodes.length} node(s), ${Object.keys(nodes[0].info).length} key(s)`;
  });
  for (const [name, m] of [['credit11', m11], ['credit07', m07]]) {
    await step(name, async () => {
      creditId = messageId();
      credit = await api.issueCreditToken(creditId, token, m, 0, 102, 0, 0);
      const last = credit[credit.length - 1];
      assert(last.tokenClass === 0 && last.transferAmount === 102, 'not the credit asked for');
      return [`${last.scaledAmount} ${last.scaledUnitName}`, digits(credit)];
    });
  }
  await step('verify', async () => {
    const want = credit[credit.length - 1];
    const r = await api.verifyToken(messageId(), token, m07, want.tokenDec);
    assert(r.validationResult === 'EVerify.Ok' && r.token, r.validationResult);
    assert(r.token.tid === want.tid && r.token.transferAmount === want.transferAmount, 'another token');
    return r.validationResult;
  });
  await step('engineering', async () => {
    const tokens = await api.issueMseToken(messageId(), token, m11, 0, 5000, 0, 0);
    const last = tokens[tokens.length - 1];
    assert(last.tokenClass === 2 && last.subclass === 0, 'not a power limit');
    return [last.description, digits(tokens)];
  });
  await step('control', async () => {
    const tokens = await api.issueSetControlToken(messageId(), token, m11, true, 0, 1, 0, 0);
    const last = tokens[tokens.length - 1];
    assert(last.tokenClass === 2 && last.subclass === 10, 'not an extended token');
    return [last.description, digits(tokens)];
  });
  for (const [name, m, count] of [['keyChange11', m11, 4], ['keyChange07', m07, 2]]) {
    await step(name, async () => {
      const tokens = await api.issueKeyChangeTokens(messageId(), token, m, to);
      assert.strictEqual(tokens.length, count);
      assert(tokens[0].newConfig && tokens[0].newConfig.toSgc === to.toSgc, 'no advice on the first');
      assert(tokens.slice(1).every((t) => !t.newConfig), 'advice on another than the first');
      return [`${count} sections`, digits(tokens)];
    });
  }
  await step('test', async () => {
    const t = await api.issueMeterTestToken(messageId(), token, 0, 0, 0);
    assert.strictEqual(t.tokenDec, '00000000000134220736');
    return [t.description, [t.tokenDec]];
  });
  // Another connection with the same access token.
  connection.end();
  ({ api, connection } = await connect());
  await step('fetch', async () => {
    assert.deepStrictEqual(await api.fetchTokenResult(messageId(), token, creditId), credit);
    return 'the same list';
  });
  await step('fetchMissing', () => refused('ECacheMiss', () => api.fetchTokenResult(messageId(), token, `never-${messageId()}`)));
  await step('badToken', () => refused('EAuthentication.Token', () => api.getStatus(messageId(), 'nonsense')));
  connection.end();
}

main().then(() => { process.exitCode = failed ? 1 : 0; }, (e) => {
  console.error(String(e));
  process.exitCode = 1;
});
