"""Walks through TokenApi with Apache Thrift's Python library.

Usage: walk.py PLAN, with the generated code and thrift on PYTHONPATH. PLAN is a
file of key=value lines. Each step is printed as one line of JSON.
"""

import json
import ssl
import sys
import time

from thrift.protocol import TBinaryProtocol
from thrift.transport import TSSLSocket, TTransport

from prismtoken1 import TokenApi
from prismtoken1.ttypes import ApiException, MeterConfigAmendment, MeterConfigIn, SessionOptions


def read_plan(path):
    with open(path, encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("=", 1) for line in f if "=" in line)


plan = read_plan(sys.argv[1])
with open(plan["passwordFile"], encoding="utf-8") as f:
    password = f.readline().rstrip("\r\n")


def connect():
    # The certificate must be the one of the file or chain to it. The server does
    # not know its own name, so the name is not compared.
    context = ssl.create_default_context(cafile=plan["ca"])
    context.check_hostname = False
    socket = TSSLSocket.TSSLSocket(plan["host"], int(plan["port"]), ssl_context=context,
                                   validate_callback=lambda cert, name: None)
    socket.setTimeout(15000)
    transport = TTransport.TFramedTransport(socket)
    transport.open()
    return TokenApi.Client(TBinaryProtocol.TBinaryProtocol(transport)), transport


failed = False


def step(name, call):
    """Runs call, which returns a detail, or (detail, tokens), or raises."""
    global failed
    line = {"step": name, "ok": False}
    try:
        detail = call()
        if isinstance(detail, tuple):
            detail, line["tokens"] = detail
        line["ok"], line["detail"] = True, detail
    except ApiException as e:
        line["detail"] = e.eCode + ": " + e.eMsgEn
    except Exception as e:  # every other failure is the step's result too
        line["detail"] = type(e).__name__ + ": " + str(e)
    failed = failed or not line["ok"]
    print(json.dumps(line), flush=True)


def refused(code, call):
    try:
        call()
    except ApiException as e:
        if e.eCode.startswith(code):
            return e.eCode
        raise
    raise AssertionError("no exception, expected " + code)


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def digits(tokens):
    for t in tokens:
        expect(len(t.tokenDec) == 20 and t.tokenDec.isdigit() and len(t.tokenHex) == 17, "token form")
    return [t.tokenDec for t in tokens]


def meter(drn, ea):
    return MeterConfigIn(drn=drn, ea=ea, tct=2, sgc=int(plan["sgc"]), krn=int(plan["krn"]), ti=int(plan["ti"]),
                         ken=int(plan["ken"]), allowKrnUpdate=False, allowKenUpdate=False)


ids = {"n": 0}


def message_id():
    ids["n"] += 1
    return "py-%d-%d" % (time.time_ns(), ids["n"])


api, transport = connect()
m11, m07 = meter(plan["drn11"], 11), meter(plan["drn07"], 7)
to = MeterConfigAmendment(toSgc=int(plan["toSgc"]), toKrn=int(plan["toKrn"]), toTi=int(plan["toTi"]))
state = {"token": ""}


def ping():
    echo = "Grüße, world"
    expect(api.ping(0, echo) == echo, "echo differs")
    return echo


def sign_in():
    state["token"] = api.signInWithPassword(message_id(), "local", plan["user"], password, SessionOptions(version="1.1")).accessToken
    expect(state["token"], "no access token")
    return "signed in"


def status():
    nodes = api.getStatus(message_id(), state["token"])
    expect(nodes and nodes[0].info and nodes[0].alerts is not None, "no node")
    return "%d node(s), %d key(s)" % (len(nodes), len(nodes[0].info))


def credit(m):
    def call():
        state["id"] = message_id()
        tokens = api.issueCreditToken(state["id"], state["token"], m, 0, 102.0, 0, 0)
        state["credit"] = tokens
        expect(tokens[-1].tokenClass == 0 and tokens[-1].transferAmount == 102.0, "not the credit asked for")
        return tokens[-1].scaledAmount + " " + tokens[-1].scaledUnitName, digits(tokens)
    return call


def verify():
    want = state["credit"][-1]
    r = api.verifyToken(message_id(), state["token"], m07, want.tokenDec)
    expect(r.validationResult == "EVerify.Ok" and r.token is not None, r.validationResult)
    expect(r.token.tid == want.tid and r.token.transferAmount == want.transferAmount, "another token")
    return r.validationResult


def engineering():
    tokens = api.issueMseToken(message_id(), state["token"], m11, 0, 5000.0, 0, 0)
    expect(tokens[-1].tokenClass == 2 and tokens[-1].subclass == 0, "not a power limit")
    return tokens[-1].description, digits(tokens)


def control():
    tokens = api.issueSetControlToken(message_id(), state["token"], m11, True, 0, 1, 0, 0)
    expect(tokens[-1].tokenClass == 2 and tokens[-1].subclass == 10, "not an extended token")
    return tokens[-1].description, digits(tokens)


def key_change(m, count):
    def call():
        tokens = api.issueKeyChangeTokens(message_id(), state["token"], m, to)
        expect(len(tokens) == count, "%d tokens" % len(tokens))
        expect(tokens[0].newConfig is not None and tokens[0].newConfig.toSgc == to.toSgc, "no advice on the first")
        expect(all(t.newConfig is None for t in tokens[1:]), "advice on another than the first")
        return "%d sections" % count, digits(tokens)
    return call


def test_token():
    t = api.issueMeterTestToken(message_id(), state["token"], 0, 0, 0)
    expect(t.tokenDec == "00000000000134220736", t.tokenDec)
    return t.description, [t.tokenDec]


def fetch():
    again = api.fetchTokenResult(message_id(), state["token"], state["id"])
    expect(again == state["credit"], "another list")
    return "the same list"


step("ping", ping)
step("signInWrongPassword", lambda: refused("ESignin.", lambda: api.signInWithPassword(
    message_id(), "local", plan["user"], "not-" + password[:40], SessionOptions())))
step("signIn", sign_in)
step("status", status)
step("credit11", credit(m11))
step("credit07", credit(m07))
step("verify", verify)
step("engineering", engineering)
step("control", control)
step("keyChange11", key_change(m11, 4))
step("keyChange07", key_change(m07, 2))
step("test", test_token)
# Another connection with the same access token.
transport.close()
api, transport = connect()
step("fetch", fetch)
step("fetchMissing", lambda: refused("ECacheMiss", lambda: api.fetchTokenResult(message_id(), state["token"], "never-" + message_id())))
step("badToken", lambda: refused("EAuthentication.Token", lambda: api.getStatus(message_id(), "nonsense")))
transport.close()
sys.exit(1 if failed else 0)
