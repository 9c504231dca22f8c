import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.UUID;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransportException;
import org.apache.thrift.transport.layered.TFramedTransport;
// Made by: thrift --gen java prismtoken1-TokenApi.thrift
import prismtoken1.ApiException;
import prismtoken1.MeterConfigIn;
import prismtoken1.SessionOptions;
import prismtoken1.Token;
import prismtoken1.TokenApi;

/**
 * Issues one electricity credit token and prints what the meter has to be given.
 * If the answer is lost on the way it asks for it again.
 *
 * <p>java Vend HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT
 */
public final class Vend {
    private final String host;
    private final int port;
    private final String user;
    private final String password;
    private final SSLContext tls = SSLContext.getInstance("TLS");

    /** A connection that is signed in. */
    private final class Session implements AutoCloseable {
        final TFramedTransport transport;
        final TokenApi.Client api;
        final String access;

        Session() throws Exception {
            SSLSocket socket = (SSLSocket) tls.getSocketFactory().createSocket(host, port);
            socket.setSoTimeout(15000);
            SSLParameters checks = socket.getSSLParameters();
            checks.setEndpointIdentificationAlgorithm("HTTPS"); // the name too, not only the chain
            socket.setSSLParameters(checks);
            transport = new TFramedTransport(new TSocket(socket));
            api = new TokenApi.Client(new TBinaryProtocol(transport));
            access = api.signInWithPassword(id(), "local", user, password, new SessionOptions("1.1")).getAccessToken();
        }

        @Override
        public void close() {
            transport.close();
        }
    }

    private Vend(String address, String ca, String user, String passwordFile) throws Exception {
        host = address.substring(0, address.lastIndexOf(':'));
        port = Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
        this.user = user;
        password = Files.readAllLines(Path.of(passwordFile), StandardCharsets.US_ASCII).get(0);
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (InputStream in = Files.newInputStream(Path.of(ca))) {
            for (Certificate c : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                trusted.setCertificateEntry("ca" + trusted.size(), c);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        tls.init(null, trust.getTrustManagers(), null);
    }

    private static String id() {
        return UUID.randomUUID().toString();
    }

    /** Returns the tokens; an answer that says no is an ApiException. */
    private List<Token> credit(MeterConfigIn meter, double amount) throws Exception {
        // One new identifier for each vend, written down before the call.
        String messageId = id();
        Exception lost;
        try (Session s = new Session()) {
            try {
                return s.api.issueCreditToken(messageId, s.access, meter, (short) 0, amount, 0, 0);
            } catch (TTransportException e) {
                lost = e;
            }
        }
        // The connection broke. Only the server knows whether it had issued.
        for (int i = 0; i < 10; i++) {
            Thread.sleep(1000);
            try (Session s = new Session()) {
                System.err.println("connected again, fetching " + messageId);
                // ECacheMiss: nothing was issued, vend anew.
                return s.api.fetchTokenResult(id(), s.access, messageId);
            } catch (TTransportException | java.io.IOException e) {
                lost = e;
            }
        }
        throw new TException("vend " + messageId + " has an unknown outcome, fetch it later", lost);
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 10) {
            System.err.println("usage: java Vend HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT");
            System.exit(2);
        }
        MeterConfigIn meter = new MeterConfigIn(args[4], Short.parseShort(args[5]), (short) 2,
                Integer.parseInt(args[6]), Short.parseShort(args[7]), Short.parseShort(args[8]), (short) 255);
        try {
            // Key change tokens come first; keep the order.
            for (Token t : new Vend(args[0], args[1], args[2], args[3]).credit(meter, Double.parseDouble(args[9]))) {
                System.out.println(String.join(" ", t.getTokenDec(), t.getDescription(), t.getScaledAmount(), t.getScaledUnitName()));
            }
        } catch (ApiException e) {
            System.err.println(e.getECode() + ": " + e.getEMsgEn());
            System.exit(3);
        }
    }
}
