// Walks through TokenApi with Apache Thrift's Java library.
//
// Usage: java Walk PLAN. PLAN is a file of key=value lines. Each step is printed as
// one line of JSON.

import java.io.FileInputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransport;
import org.apache.thrift.transport.layered.TFramedTransport;
import prismtoken1.ApiException;
import prismtoken1.MeterConfigAmendment;
import prismtoken1.MeterConfigIn;
import prismtoken1.MeterTestToken;
import prismtoken1.NodeStatus;
import prismtoken1.SessionOptions;
import prismtoken1.Token;
import prismtoken1.TokenApi;
import prismtoken1.VerifyResult;

public final class Walk {
    private interface Call {
        String run() throws Exception;
    }

    private final Map<String, String> plan = new HashMap<>();
    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private String password;
    private TTransport transport;
    private TokenApi.Client api;
    private String access = "";
    private List<Token> credit = new ArrayList<>();
    private String creditId = "";
    private List<String> printed;
    private boolean failed;
    private int messages;

    public static void main(String[] args) throws Exception {
        Walk w = new Walk();
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            int at = line.indexOf('=');
            if (at > 0) {
                w.plan.put(line.substring(0, at), line.substring(at + 1));
            }
        }
        w.password = Files.readAllLines(Path.of(w.plan.get("passwordFile"))).get(0);
        w.walk();
        System.exit(w.failed ? 1 : 0);
    }

    // The certificate must be the one of the file or chain to it; the server does
    // not know its own name, so no endpoint identification is set.
    private void connect() throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = new FileInputStream(plan.get("ca"))) {
            int n = 0;
            for (Certificate c : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                store.setCertificateEntry("ca" + n++, c);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(plan.get("host"), number("port"));
        socket.setSoTimeout(15000);
        socket.startHandshake();
        transport = new TFramedTransport(new TSocket(socket));
        api = new TokenApi.Client(new TBinaryProtocol(transport));
    }

    private int number(String key) {
        return Integer.parseInt(plan.get(key));
    }

    private void step(String name, Call call) {
        printed = null;
        String detail;
        boolean ok = false;
        try {
            detail = call.run();
            ok = true;
        } catch (ApiException e) {
            detail = e.getECode() + ": " + e.getEMsgEn();
        } catch (Exception | AssertionError e) {
            detail = e.toString();
        }
        failed |= !ok;
        StringBuilder line = new StringBuilder("{\"step\":").append(quote(name)).append(",\"ok\":").append(ok).append(",\"detail\":").append(quote(detail));
        if (printed != null) {
            line.append(",\"tokens\":[\"").append(String.join("\",\"", printed)).append("\"]");
        }
        out.println(line.append('}'));
    }

    private static String quote(String s) {
        StringBuilder b = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\') {
                b.append('\\').append(c);
            } else if (c < ' ') {
                b.append(String.format("\\u%04x", (int) c));
            } else {
                b.append(c);
            }
        }
        return b.append('"').toString();
    }

    private static void expect(boolean condition, String text) {
        if (!condition) {
            throw new AssertionError(text);
        }
    }

    private String refused(String code, Call call) throws Exception {
        try {
            call.run();
        } catch (ApiException e) {
            if (e.getECode().startsWith(code)) {
                return e.getECode();
            }
            throw e;
        }
        throw new AssertionError("no exception, expected " + code);
    }

    private String id() {
        return "java-" + System.nanoTime() + "-" + ++messages;
    }

    private MeterConfigIn meter(String drn, int ea) {
        return new MeterConfigIn().setDrn(drn).setEa((short) ea).setTct((short) 2).setSgc(number("sgc")).setKrn((short) number("krn"))
            .setTi((short) number("ti")).setKen((short) number("ken")).setAllowKrnUpdate(false).setAllowKenUpdate(false);
    }

    private Token digits(List<Token> tokens) {
        printed = new ArrayList<>();
        for (Token t : tokens) {
            expect(t.getTokenDec().matches("[0-9]{20}") && t.getTokenHex().length() == 17, "token form");
            printed.add(t.getTokenDec());
        }
        return tokens.get(tokens.size() - 1);
    }

    private String issueCredit(MeterConfigIn m) throws Exception {
        creditId = id();
        credit = api.issueCreditToken(creditId, access, m, (short) 0, 102, 0, 0);
        Token last = digits(credit);
        expect(last.getTokenClass() == 0 && last.getTransferAmount() == 102, "not the credit asked for");
        return last.getScaledAmount() + " " + last.getScaledUnitName();
    }

    private String changeKey(MeterConfigIn m, MeterConfigAmendment to, int count) throws Exception {
        List<Token> tokens = api.issueKeyChangeTokens(id(), access, m, to);
        expect(tokens.size() == count, tokens.size() + " tokens");
        digits(tokens);
        expect(tokens.get(0).isSetNewConfig() && tokens.get(0).getNewConfig().getToSgc() == to.getToSgc(), "no advice on the first");
        for (Token t : tokens.subList(1, count)) {
            expect(!t.isSetNewConfig(), "advice on another than the first");
        }
        return count + " sections";
    }

    private void walk() throws Exception {
        connect();
        MeterConfigIn m11 = meter(plan.get("drn11"), 11);
        MeterConfigIn m07 = meter(plan.get("drn07"), 7);
        MeterConfigAmendment to = new MeterConfigAmendment(number("toSgc"), (short) number("toKrn"), (short) number("toTi"));
        SessionOptions options = new SessionOptions().setVersion("1.1");

        step("ping", () -> {
            String echo = "Gr\u00fc\u00dfe, world";
            expect(api.ping(0, echo).equals(echo), "echo differs");
            return echo;
        });
        step("signInWrongPassword", () -> refused("ESignin.", () -> api.signInWithPassword(id(), "local", plan.get("user"),
            "not-" + password.substring(0, Math.min(40, password.length())), options).getAccessToken()));
        step("signIn", () -> {
            access = api.signInWithPassword(id(), "local", plan.get("user"), password, options).getAccessToken();
            expect(!access.isEmpty(), "no access token");
            return "signed in";
        });
        step("status", () -> {
            List<NodeStatus> nodes = api.getStatus(id(), access);
            expect(!nodes.isEmpty() && nodes.get(0).isSetAlerts(), "no node");
            return nodes.size() + " node(s), " + nodes.get(0).getInfoSize() + " key(s)";
        });
        step("credit11", () -> issueCredit(m11));
        step("credit07", () -> issueCredit(m07));
        step("verify", () -> {
            Token want = credit.get(credit.size() - 1);
            VerifyResult r = api.verifyToken(id(), access, m07, want.getTokenDec());
            expect(r.getValidationResult().equals("EVerify.Ok") && r.isSetToken(), r.getValidationResult());
            expect(r.getToken().getTid() == want.getTid() && r.getToken().getTransferAmount() == want.getTransferAmount(), "another token");
            return r.getValidationResult();
        });
        step("engineering", () -> {
            Token last = digits(api.issueMseToken(id(), access, m11, (short) 0, 5000, 0, 0));
            expect(last.getTokenClass() == 2 && last.getSubclass() == 0, "not a power limit");
            return last.getDescription();
        });
        step("control", () -> {
            Token last = digits(api.issueSetControlToken(id(), access, m11, true, (short) 0, (short) 1, 0, 0));
            expect(last.getTokenClass() == 2 && last.getSubclass() == 10, "not an extended token");
            return last.getDescription();
        });
        step("keyChange11", () -> changeKey(m11, to, 4));
        step("keyChange07", () -> changeKey(m07, to, 2));
        step("test", () -> {
            MeterTestToken t = api.issueMeterTestToken(id(), access, (short) 0, 0, (short) 0);
            expect(t.getTokenDec().equals("00000000000134220736"), t.getTokenDec());
            printed = List.of(t.getTokenDec());
            return t.getDescription();
        });
        // Another connection with the same access token.
        transport.close();
        connect();
        step("fetch", () -> {
            expect(api.fetchTokenResult(id(), access, creditId).equals(credit), "another list");
            return "the same list";
        });
        step("fetchMissing", () -> refused("ECacheMiss", () -> String.valueOf(api.fetchTokenResult(id(), access, "never-" + id()))));
        step("badToken", () -> refused("EAuthentication.Token", () -> String.valueOf(api.getStatus(id(), "nonsense"))));
        transport.close();
    }
}
