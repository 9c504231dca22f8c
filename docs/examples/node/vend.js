// Issues one electricity credit token and prints what the meter has to be given.
// If the answer is lost on the way it asks for it again.
//
//   node vend.js HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT
'use strict';

const { randomUUID } = require('crypto');
const fs = require('fs');
const path = require('path');
const thrift = require('thrift');

// Made by: thrift --gen js:node prismtoken1-TokenApi.thrift
const generated = process.env.VEND_GENERATED || path.join(__dirname, 'gen-nodejs');
const TokenApi = require(path.join(generated, 'TokenApi.js'));
const types = require(path.join(generated, 'prismtoken1-TokenApi_types.js'));

// Calls work(client, access token) in a session. It fails if the connection does,
// also while a call waits: the library alone would then wait for ever.
function session(server, work) {
  const at = server.address.lastIndexOf(':');
  const connection = thrift.createSSLConnection(server.address.slice(0, at), Number(server.address.slice(at + 1)), {
    transport: thrift.TFramedTransport,
    protocol: thrift.TBinaryProtocol,
    connect_timeout: 10000,
    timeout: 15000,
    ca: [fs.readFileSync(server.ca)], // the certificate and its name are checked
  });
  const broken = new Promise((_, reject) => {
    const lost = (why) => reject(Object.assign(new Error(`connection lost: ${why}`), { lost: true }));
    connection.on('error', (e) => lost(e.message));
    connection.on('close', () => lost('closed'));
    connection.on('timeout', () => lost('no answer in time'));
  });
  const connected = new Promise((resolve) => connection.on('connect', resolve));
  const call = async () => {
    await connected;
    const api = thrift.createClient(TokenApi, connection);
    const options = new types.SessionOptions({ version: '1.1' });
    const { accessToken } = await api.signInWithPassword(randomUUID(), 'local', server.user, server.password, options);
    return work(api, accessToken);
  };
  return Promise.race([call(), broken]).finally(() => connection.end());
}

// Returns the tokens; an answer that says no is an ApiException.
async function credit(server, meter, amount) {
  // One new identifier for each vend, written down before the call.
  const messageId = randomUUID();
  let asked = false;
  let lost;
  try {
    return await session(server, (api, access) => {
      asked = true;
      return api.issueCreditToken(messageId, access, meter, 0, amount, 0, 0);
    });
  } catch (e) {
    if (!asked || !e.lost) {
      throw e;
    }
    lost = e;
  }
  // The connection broke. Only the server knows whether it had issued.
  for (let i = 0; i < 10; i++) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      return await session(server, (api, access) => {
        console.error(`connected again, fetching ${messageId}`);
        return api.fetchTokenResult(randomUUID(), access, messageId); // ECacheMiss: nothing was issued, vend anew
      });
    } catch (e) {
      if (!e.lost) {
        throw e;
      }
      lost = e;
    }
  }
  throw new Error(`vend ${messageId} has an unknown outcome, fetch it later: ${lost.message}`);
}

async function main([address, ca, user, passwordFile, drn, ea, sgc, krn, ti, amount]) {
  if (amount === undefined) {
    console.error('usage: node vend.js HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT');
    return 2;
  }
  const password = fs.readFileSync(passwordFile, 'ascii').split(/\r?\n/)[0];
  const meter = new types.MeterConfigIn({
    drn, ea: Number(ea), tct: 2, sgc: Number(sgc), krn: Number(krn), ti: Number(ti), ken: 255,
  });
  try {
    for (const t of await credit({ address, ca, user, password }, meter, Number(amount))) {
      // Key change tokens come first; keep the order.
      console.log(t.tokenDec, t.description, t.scaledAmount, t.scaledUnitName);
    }
    return 0;
  } catch (e) {
    console.error(e instanceof types.ApiException ? `${e.eCode}: ${e.eMsgEn}` : e.message);
    return e instanceof types.ApiException ? 3 : 1;
  }
}

main(process.argv.slice(2)).then((code) => { process.exitCode = code; });
