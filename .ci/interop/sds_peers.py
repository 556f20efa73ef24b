"""Peers of a proxy that speaks TLS: certificates, a service that says who asks it, a client that says who answers."""

import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

# A handshake that takes so long does not happen: nobody accepts the connection.
HANGS = 1.5
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
KEYS = {"weak": ("-newkey", "rsa:1024"), "rsa": ("-newkey", "rsa:2048")}
# Who is certified, and by whom.
LEAVES = {"s1": "ca1", "s2": "ca2", "c1": "ca1", "c2": "ca2", "u1": "ca1", "u2": "ca2", "weak": "ca1", "rsa": "ca1"}


class Pki:
    """Certificates, made once: two authorities, and who is certified by them."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="legate-pki-"))
        for name in ("ca1", "ca2"):
            self.authority(name)
        for name, authority in LEAVES.items():
            self.leaf(name, authority, KEYS.get(name, CURVE))
        self.expired("old", "ca1")
        self.known = {name: ssl.PEM_cert_to_DER_cert(self.text(f"{name}.pem")) for name in ("ca1", "ca2", "old", *LEAVES)}

    def authority(self, name):
        self.openssl("req", "-x509", *CURVE, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "3650",
                     "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def leaf(self, name, authority, key):
        self.openssl("req", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.directory / "extensions").write_text(
            f"subjectAltName=DNS:{name}.test,URI:spiffe://td/{name}\nbasicConstraints=CA:FALSE\n")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
                     "-CAcreateserial", "-out", f"{name}.pem", "-extfile", "extensions", "-days", "365")

    def expired(self, name, authority):
        self.leaf(name, authority, CURVE)
        (self.directory / "index").touch()
        (self.directory / "ca").write_text("[ca]\ndefault_ca=it\n[it]\ndatabase=index\nnew_certs_dir=.\npolicy=any\nserial=number\n"
                                           "default_md=sha256\n[any]\ncommonName=supplied\n")
        self.openssl("ca", "-batch", "-notext", "-create_serial", "-config", "ca", "-in", f"{name}.csr", "-out", f"{name}.pem",
                     "-cert", f"{authority}.pem", "-keyfile", f"{authority}.key", "-extfile", "extensions",
                     "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def path(self, name):
        return str(self.directory / name)

    def whose(self, certificate):
        """The name of the certificate with these bytes."""
        return next((name for name, known in self.known.items() if known == certificate), "a stranger")

    def text(self, name):
        return (self.directory / name).read_text()

    def close(self):
        shutil.rmtree(self.directory)


class Upstream:
    """An HTTP/1.1 service over TLS that answers with who asks. Its certificate may change."""

    def __init__(self, pki, name="u1"):
        self.pki, self.context = pki, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.options |= ssl.OP_NO_TICKET
        self.context.num_tickets = 0
        self.context.verify_mode = ssl.CERT_OPTIONAL
        for authority in ("ca1", "ca2"):
            self.context.load_verify_locations(pki.path(f"{authority}.pem"))
        self.use(name)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def use(self, name):
        self.context.load_cert_chain(self.pki.path(f"{name}.pem"), self.pki.path(f"{name}.key"))

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            connection.settimeout(60)
            with self.context.wrap_socket(connection, server_side=True) as stream:
                while head := read_head(stream):
                    text = f"upstream sees {common_name(stream.getpeercert())}"
                    close = "connection: close\r\n" if head.startswith(b"GET /close ") else ""
                    stream.sendall(f"HTTP/1.1 200 OK\r\n{close}content-length: {len(text)}\r\n\r\n{text}".encode())
                    if close:
                        return
        except OSError:
            connection.close()

    def close(self):
        self.socket.close()


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (more := stream.recv(1)):
            return b""
        head += more
    return head


def common_name(certificate):
    names = dict(field for name in (certificate or {}).get("subject", ()) for field in name)
    return names.get("commonName", "nobody")


class Client:
    """A client over TLS that keeps its connection and looks at who answers."""

    def __init__(self, subject, name="", port="in"):
        pki, context = subject.pki, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if name:
            context.load_cert_chain(pki.path(f"{name}.pem"), pki.path(f"{name}.key"))
        self.pki, self.fresh = pki, True
        self.context, self.address, self.stream = context, ("127.0.0.1", subject.port(port)), None

    def ask(self, path):
        """What is answered, or why nothing is."""
        try:
            if self.stream is None:
                plain = socket.create_connection(self.address, timeout=HANGS)
                self.stream = self.context.wrap_socket(plain)
            self.stream.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            head = read_head(self.stream)
            if not head:
                return "refused" if self.fresh else "closed"
            self.fresh = False
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            body = b""
            while len(body) < length:
                body += self.stream.recv(length - len(body))
            status = head.split(b" ", 2)[1].decode()
            return f"{self.pki.whose(self.stream.getpeercert(True))} answers {status} {body.decode()}"
        except ConnectionRefusedError:
            return "nobody listens"
        except (ssl.SSLError, ConnectionError):
            # Whether an alert is seen before the end is a matter of time, and compared elsewhere.
            return "refused" if self.fresh else "closed"
        except TimeoutError:
            return "nobody accepts"

    def close(self):
        if self.stream:
            self.stream.close()
