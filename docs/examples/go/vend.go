// Command vend issues one electricity credit token and prints what the meter
// has to be given. If the answer is lost on the way it asks for it again.
//
//	vend HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"github.com/google/uuid"

	// Made by: thrift --gen go:ignore_initialisms prismtoken1-TokenApi.thrift
	api "github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

type server struct{ address, user, password, ca string }

// session connects and signs in.
func (s server) session(ctx context.Context) (client *api.TokenApiClient, access string, end func(), err error) {
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, "", nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, "", nil, fmt.Errorf("%s holds no certificate", s.ca)
	}
	conf := &thrift.TConfiguration{
		ConnectTimeout: 10 * time.Second, SocketTimeout: 15 * time.Second,
		TLSConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	// The buffer sends the frame's length and the frame in one TLS record.
	socket := thrift.NewTBufferedTransport(thrift.NewTSSLSocketConf(s.address, conf), 8192)
	transport := thrift.NewTFramedTransportConf(socket, conf)
	if err := transport.Open(); err != nil {
		return nil, "", nil, err
	}
	end = func() { _ = transport.Close() }
	protocol := thrift.NewTBinaryProtocolConf(transport, conf)
	client = api.NewTokenApiClient(thrift.NewTStandardClient(protocol, protocol))
	signedIn, err := client.SignInWithPassword(ctx, uuid.NewString(), "local", s.user, s.password, api.NewSessionOptions())
	if err != nil {
		end()
		return nil, "", nil, err
	}
	return client, signedIn.AccessToken, end, nil
}

// credit issues a token. An answer that says no is an *api.ApiException.
func (s server) credit(ctx context.Context, meter *api.MeterConfigIn, amount float64) ([]*api.Token, error) {
	client, access, end, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	// One new identifier for each vend, written down before the call.
	id := uuid.NewString()
	tokens, err := client.IssueCreditToken(ctx, id, access, meter, 0, amount, 0, 0)
	var said thrift.TException
	if err == nil || errors.As(err, &said) && said.TExceptionType() != thrift.TExceptionTypeTransport {
		return tokens, err
	}
	// The connection broke. Only the server knows whether it had issued.
	for range 10 {
		time.Sleep(time.Second)
		tokens, again := s.fetch(ctx, id)
		if again == nil || errors.As(again, new(*api.ApiException)) {
			return tokens, again // ECacheMiss: nothing was issued, vend anew
		}
		err = again
	}
	return nil, fmt.Errorf("vend %s has an unknown outcome, fetch it later: %w", id, err)
}

func (s server) fetch(ctx context.Context, id string) ([]*api.Token, error) {
	client, access, end, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	fmt.Fprintln(os.Stderr, "connected again, fetching", id)
	return client.FetchTokenResult_(ctx, uuid.NewString(), access, id)
}

func main() {
	if len(os.Args) != 11 {
		fmt.Fprintln(os.Stderr, "usage: vend HOST:PORT CA.pem USER PASSWORD-FILE DRN EA SGC KRN TI AMOUNT")
		os.Exit(2)
	}
	secret, err := os.ReadFile(os.Args[4])
	if err != nil {
		fail(err)
	}
	password, _, _ := strings.Cut(string(secret), "\n")
	number := func(at int) int {
		n, err := strconv.Atoi(os.Args[at])
		if err != nil {
			fail(err)
		}
		return n
	}
	meter := api.NewMeterConfigIn() // with the interface's defaults
	meter.Drn, meter.Ea, meter.Tct = os.Args[5], int16(number(6)), 2
	meter.Sgc, meter.Krn, meter.Ti, meter.Ken = int32(number(7)), int16(number(8)), int16(number(9)), 255
	s := server{address: os.Args[1], ca: os.Args[2], user: os.Args[3], password: strings.TrimSuffix(password, "\r")}
	tokens, err := s.credit(context.Background(), meter, float64(number(10)))
	if err != nil {
		fail(err)
	}
	for _, t := range tokens { // key change tokens come first; keep the order
		fmt.Println(t.TokenDec, t.Description, t.ScaledAmount, t.ScaledUnitName)
	}
}

func fail(err error) {
	var no *api.ApiException
	if errors.As(err, &no) {
		fmt.Fprintf(os.Stderr, "%s: %s\n", no.ECode, no.EMsgEn)
		os.Exit(3)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
