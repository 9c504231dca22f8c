// Issues one electricity credit token and prints what the meter has to be given.
// If the answer is lost on the way it asks for it again.
//
//   Vend HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using System.Threading.Tasks;
using Thrift;
using Thrift.Protocol;
using Thrift.Transport;
using Thrift.Transport.Client;

// The classes of the interface are made by: thrift --gen netstd prismtoken1-TokenApi.thrift
public static class Vend
{
    private sealed class Server
    {
        public string Host, User, Password;
        public int Port;
        public X509Certificate2 Certificate;

        // A connection that is signed in.
        public async Task<Session> SignIn()
        {
            var config = new TConfiguration();
            var host = Dns.GetHostAddresses(Host)[0];
            // The server must show the very certificate that its owner gave us, in its time.
            var socket = new TTlsSocketTransport(host, Port, config, 15000, null, (sender, shown, chain, errors) =>
                shown != null && shown.GetRawCertData().SequenceEqual(Certificate.RawData)
                && DateTime.Now >= Certificate.NotBefore && DateTime.Now <= Certificate.NotAfter);
            var transport = new TFramedTransport(socket);
            await transport.OpenAsync(default);
            var api = new TokenApi.Client(new TBinaryProtocol(transport));
            try
            {
                var answer = await api.signInWithPassword(Id(), "local", User, Password, new SessionOptions { Version = "1.1" });
                return new Session { Api = api, Access = answer.AccessToken };
            }
            catch
            {
                api.Dispose();
                throw;
            }
        }
    }

    private sealed class Session : IDisposable
    {
        public TokenApi.Client Api;
        public string Access;

        public void Dispose()
        {
            Api.Dispose();
        }
    }

    private static string Id()
    {
        return Guid.NewGuid().ToString();
    }

    private static bool IsLost(Exception e)
    {
        return e is TTransportException || e is IOException || e is SocketException;
    }

    // Returns the tokens; an answer that says no is an ApiException.
    private static async Task<List<Token>> Credit(Server server, MeterConfigIn meter, double amount)
    {
        // One new identifier for each vend, written down before the call.
        var messageId = Id();
        Exception lost = null;
        using (var s = await server.SignIn())
        {
            try
            {
                return await s.Api.issueCreditToken(messageId, s.Access, meter, 0, amount, 0, 0);
            }
            catch (Exception e) when (IsLost(e))
            {
                lost = e;
            }
        }
        // The connection broke. Only the server knows whether it had issued.
        for (var i = 0; i < 10; i++)
        {
            await Task.Delay(1000);
            try
            {
                using (var s = await server.SignIn())
                {
                    Console.Error.WriteLine("connected again, fetching " + messageId);
                    // ECacheMiss: nothing was issued, vend anew.
                    return await s.Api.fetchTokenResult(Id(), s.Access, messageId);
                }
            }
            catch (Exception e) when (IsLost(e))
            {
                lost = e;
            }
        }
        throw new InvalidOperationException("vend " + messageId + " has an unknown outcome, fetch it later", lost);
    }

    private static async Task<int> Run(string[] args)
    {
        var colon = args[0].LastIndexOf(':');
        var server = new Server
        {
            Host = args[0].Substring(0, colon), Port = int.Parse(args[0].Substring(colon + 1)),
            Certificate = new X509Certificate2(args[1]), User = args[2], Password = File.ReadLines(args[3]).First(),
        };
        var meter = new MeterConfigIn
        {
            Drn = args[4], Ea = short.Parse(args[5]), Tct = 2, Sgc = int.Parse(args[6]), Krn = short.Parse(args[7]),
            Ti = short.Parse(args[8]), Ken = 255,
        };
        try
        {
            // Key change tokens come first; keep the order.
            foreach (var t in await Credit(server, meter, double.Parse(args[9], CultureInfo.InvariantCulture)))
            {
                Console.WriteLine(string.Join(" ", t.TokenDec, t.Description, t.ScaledAmount, t.ScaledUnitName));
            }
            return 0;
        }
        catch (ApiException e)
        {
            Console.Error.WriteLine(e.ECode + ": " + e.EMsgEn);
            return 3;
        }
    }

    public static int Main(string[] args)
    {
        if (args.Length != 10)
        {
            Console.Error.WriteLine("usage: Vend HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT");
            return 2;
        }
        return Run(args).GetAwaiter().GetResult();
    }
}
