package keys_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// This file is a client of the security module's low-level API that knows its
// description and nothing else: CRC, frames and fields are its own.

const answerTime = 20 * time.Second

// client is one connection, over TCP or through OpenSSH.
type client struct {
	t      testing.TB
	stream io.ReadWriteCloser
}

// dialTCP connects to the Conductor's port.
func dialTCP(t testing.TB, address string) *client {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, answerTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{t, c}
}

// crc16 is CRC-16/ARC, bit by bit.
func crc16(text string) string {
	crc := 0
	for i := range len(text) {
		crc ^= int(text[i])
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low == 1 {
				crc ^= 0xA001
			}
		}
	}
	return fmt.Sprintf("%04X", crc)
}

// line sends a text with its CRC and returns the answer's line with its CRC.
func (c *client) line(text string) (string, error) {
	line := text + crc16(text)
	n := 6 + len(line) + 1
	frame := append([]byte{byte(n >> 8), byte(n), 0xED, 0xF1, 0x2B, 0x00, 0xFE, 0xED}, line...)
	stop := time.AfterFunc(answerTime, func() { _ = c.stream.Close() })
	defer stop.Stop()
	if _, err := c.stream.Write(append(frame, '\r')); err != nil {
		return "", err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(c.stream, head); err != nil {
		return "", err
	}
	rest := make([]byte, int(head[0])<<8+int(head[1])-6)
	if _, err := io.ReadFull(c.stream, rest); err != nil {
		return "", err
	}
	if string(head[2:]) != "\xED\xF1\x2B\x00\xFE\xED" || len(rest) < 12 || rest[len(rest)-1] != '\r' {
		return "", fmt.Errorf("this is no answer: %q%q", head, rest)
	}
	answer := string(rest[:len(rest)-1])
	if body, crc := answer[:len(answer)-4], answer[len(answer)-4:]; crc != crc16(body) {
		return "", fmt.Errorf("CRC %s of %q", crc, body)
	}
	return answer, nil
}

// ask sends an SM command and returns status and fields.
func (c *client) ask(command string, fields ...string) (status string, values []string, err error) {
	request := "SM?" + command
	for _, f := range fields {
		request += f + "~"
	}
	answer, err := c.line(request)
	if err != nil {
		return "", nil, err
	}
	if code, bare := strings.CutPrefix(answer, "GL!ER"); bare {
		return code[:2], nil, nil
	}
	if !strings.HasPrefix(answer, "SM!"+command) {
		return "", nil, fmt.Errorf("%s is answered %q", request, answer)
	}
	status, rest := answer[5:7], answer[7:len(answer)-4]
	for _, f := range strings.Split(strings.TrimSuffix(rest, "~"), "~") {
		if f != "" {
			values = append(values, f[1:])
		}
	}
	return status, values, nil
}

// call is ask for one that has to be answered.
func (c *client) call(command string, fields ...string) (status string, values []string) {
	c.t.Helper()
	status, values, err := c.ask(command, fields...)
	if err != nil {
		c.t.Fatalf("SM?%s: %v", command, err)
	}
	return status, values
}

// must is call for a command that has to succeed with n fields.
func (c *client) must(n int, command string, fields ...string) []string {
	c.t.Helper()
	status, values := c.call(command, fields...)
	if status != "00" || len(values) != n {
		c.t.Fatalf("SM?%s %v: status %s, fields %v", command, fields, status, values)
	}
	return values
}

// pipe is OpenSSH's client as a stream.
type pipe struct {
	io.WriteCloser
	out io.ReadCloser
}

func (p pipe) Read(b []byte) (int, error) { return p.out.Read(b) }
func (p pipe) Close() error               { _ = p.WriteCloser.Close(); return p.out.Close() }

// dialSSH gives the SSH service to a key that ssh-keygen made, and connects to
// it with 'ssh -s'.
func (p *platform) dialSSH() *client {
	t := p.t
	t.Helper()
	dir := t.TempDir()
	identity, known := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", identity).CombinedOutput(); err != nil {
		t.Fatalf("this test needs ssh and ssh-keygen (Debian package openssh-client): %v\n%s", err, out)
	}
	words := strings.Fields(read(t, identity+".pub"))
	p.must(rig.Tenant, "hsmadmin", "vcm", "remote-set", "conductor", words[0], words[1])
	unit, err := p.UnitKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, append([]byte("@cert-authority * "), ssh.MarshalAuthorizedKey(unit)...), 0o600); err != nil {
		t.Fatal(err)
	}
	esn, err := p.ESN()
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(p.endpoint("conductor"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ssh", "-F", "none", "-p", port, "-i", identity, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile="+known, "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
		"-o", "ConnectTimeout=10", "-o", "HostKeyAlias="+strings.ToLower(esn+"/"+p.vcm.UUID+"/conductor"), "-s", host, "conductor")
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	var diagnosis strings.Builder
	cmd.Stderr = &diagnosis
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil && t.Failed() {
			t.Logf("ssh ended with %v and said %s", err, diagnosis.String())
		}
	})
	return &client{t, pipe{in, out}}
}

// tidAt is the 2014 token identifier of an instant as a field.
func tidAt(at time.Time) string {
	return fmt.Sprintf("H%06X", int(at.Sub(time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC))/time.Minute))
}
