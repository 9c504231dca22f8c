"""Issues one electricity credit token and prints what the meter has to be given.

If the answer is lost on the way it asks for it again.

    vend.py HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT
"""

import ssl
import sys
import time
import uuid

from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TSSLSocket import TSSLSocket
from thrift.transport.TTransport import TFramedTransport, TTransportException

# Made by: thrift --gen py prismtoken1-TokenApi.thrift
from prismtoken1 import TokenApi
from prismtoken1.ttypes import ApiException, MeterConfigIn, SessionOptions


class Session:
    """A connection that is signed in."""

    def __init__(self, address, ca, user, password):
        host, port = address.rsplit(":", 1)
        context = ssl.create_default_context(cafile=ca)
        # The context has checked the certificate and the name already.
        socket = TSSLSocket(host, int(port), ssl_context=context, validate_callback=lambda cert, name: None)
        socket.setTimeout(15000)
        self.transport = TFramedTransport(socket)
        self.transport.open()
        self.api = TokenApi.Client(TBinaryProtocol(self.transport))
        options = SessionOptions(version="1.1")
        self.access = self.api.signInWithPassword(str(uuid.uuid4()), "local", user, password, options).accessToken

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.transport.close()


def credit(server, meter, amount):
    """Returns the tokens; an answer that says no is an ApiException."""
    # One new identifier for each vend, written down before the call.
    message_id = str(uuid.uuid4())
    with Session(*server) as s:
        try:
            return s.api.issueCreditToken(message_id, s.access, meter, 0, amount, 0, 0)
        except (TTransportException, OSError, EOFError) as e:
            lost = e
    # The connection broke. Only the server knows whether it had issued.
    for _ in range(10):
        time.sleep(1)
        try:
            with Session(*server) as s:
                print("connected again, fetching", message_id, file=sys.stderr)
                # ECacheMiss: nothing was issued, vend anew.
                return s.api.fetchTokenResult(str(uuid.uuid4()), s.access, message_id)
        except (TTransportException, OSError, EOFError) as e:
            lost = e
    raise RuntimeError("vend %s has an unknown outcome, fetch it later" % message_id) from lost


def main():
    if len(sys.argv) != 11:
        sys.exit(__doc__)
    address, ca, user, password_file, drn, ea, sgc, krn, ti, amount = sys.argv[1:]
    with open(password_file, encoding="ascii") as f:
        password = f.readline().rstrip("\r\n")
    meter = MeterConfigIn(drn=drn, ea=int(ea), tct=2, sgc=int(sgc), krn=int(krn), ti=int(ti), ken=255)
    try:
        tokens = credit((address, ca, user, password), meter, float(amount))
    except ApiException as e:
        print("%s: %s" % (e.eCode, e.eMsgEn), file=sys.stderr)
        sys.exit(3)
    for t in tokens:  # key change tokens come first; keep the order
        print(t.tokenDec, t.description, t.scaledAmount, t.scaledUnitName)


main()
