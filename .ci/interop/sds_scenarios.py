"""The conversations about secrets: what is sent, step by step. What the proxies say and show is noted after each."""

import asyncio

from envoy.config.endpoint.v3 import endpoint_pb2

from xds_subject import message

ALL = ("", "c1", "c2")


async def arrive(s):
    """One secret after the other."""
    await s.note("starts", "", seconds=1.5)
    s.give(s.trust("up_trust"))
    await s.note("what the client trusts", "")
    s.give(s.trust("up_trust"), s.certificate("client", "c1"), version="2")
    await s.note("the client's certificate", "")
    s.give(s.certificate("server"), version="3")
    await s.note("the server's certificate", "")
    s.give(s.trust("trust"), version="4")
    await s.note("what it trusts", *ALL)


async def served(s, *clients):
    await s.note("starts", seconds=1.5)
    # Nobody asks for what listeners need before the clusters have what they need.
    s.give(s.certificate("client", "c1"), s.trust("up_trust"))
    await s.note("secrets of the cluster", "")
    s.give_all("2")
    await s.note("all secrets", *(clients or ("c1",)))


async def rotate(s):
    await served(s, *ALL)
    s.steps.append(f"  kept from now on: {s.keep('c1')}")
    s.give(s.certificate("server", "s2"), s.trust("trust"), s.certificate("client", "c1"), s.trust("up_trust"), version="2")
    await s.note("another certificate of the server", "c1")
    s.give(s.certificate("server", "s2"), s.trust("trust", "ca2"), s.certificate("client", "c1"), s.trust("up_trust"), version="3")
    await s.note("another authority for clients", *ALL)
    s.give(s.certificate("server", "s2"), s.trust("trust", "ca2"), s.certificate("client", "c2"), s.trust("up_trust"), version="4")
    await s.note("another certificate of the client", "c2")
    s.give(s.certificate("server", "s2"), s.trust("trust", "ca2"), s.certificate("client", "c2"), s.trust("up_trust", "ca2"), version="5")
    await s.note("another authority for upstreams", "c2")
    s.upstream.use("u2")
    await s.note("another certificate of the upstream", "c2")


async def same(s):
    await served(s)
    s.give_all()
    await s.note("the same again", "c1")
    s.give(s.certificate("server", "s1"), s.trust("trust"), version="2")
    await s.note("the same in a new version", "c1")


async def gone(s):
    await served(s)
    if s.api == "GRPC":
        s.give(s.certificate("server"), s.trust("trust"), version="2")
        await s.note("without the client's", "c1")
        s.plane.send("SDS", version="3")
        await s.note("nothing", "c1")
    else:
        s.give(version="2", removed=["client"])
        await s.note("without the client's", "c1")
        s.give(version="3", removed=["server", "trust", "client", "up_trust", "nobody"])
        await s.note("nothing", "c1")
    s.give_all()
    await s.note("all again", "c1")


def broken(s):
    """What is not accepted in the place of the server's certificate, and of what is trusted."""
    # Not where secrets come as files: what is moved there would be noticed.
    directory = s.directory / "parts"
    directory.mkdir()
    leaf, key = s.pki.text("s1.pem"), s.pki.text("s1.key")
    tls = lambda **fields: s.secret("server", tls_certificate=fields)
    validation = lambda **fields: s.secret("trust", validation_context=fields)
    inline = lambda text: {"inline_string": text}
    half = leaf[: len(leaf) // 2] + "\n-----END CERTIFICATE-----\n"
    (directory / "empty.pem").write_text("")
    (directory / "garbage.pem").write_text("garbage")
    (directory / "s1.pem").write_text(leaf)
    (directory / "s1.key").write_text(key)
    (directory / "c1.key").write_text(s.pki.text("c1.key"))
    file = lambda name: {"filename": str(directory / name)}
    yield "server", "no certificate", tls(certificate_chain=inline("garbage"), private_key=inline(key))
    yield "server", "half a certificate", tls(certificate_chain=inline(half), private_key=inline(key))
    yield "server", "a certificate without base64", tls(
        certificate_chain=inline("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"), private_key=inline(key))
    yield "server", "no key", tls(certificate_chain=inline(leaf), private_key=inline("garbage"))
    yield "server", "half a key", tls(certificate_chain=inline(leaf), private_key=inline(key[: len(key) // 2]))
    yield "server", "a key that is not one", tls(certificate_chain=inline(leaf), private_key=inline(leaf))
    yield "server", "the key of another", s.certificate("server", "s1", "c1")
    yield "server", "the key of another kind", s.certificate("server", "s1", "rsa")
    yield "server", "a weak key", s.certificate("server", "weak")
    yield "server", "a chain and no key", tls(certificate_chain=inline(leaf))
    yield "server", "a key and no chain", tls(private_key=inline(key))
    yield "server", "an empty chain", tls(certificate_chain=inline(""), private_key=inline(key))
    yield "server", "an empty key", tls(certificate_chain=inline(leaf), private_key=inline(""))
    yield "server", "a key that may not sign", s.certificate("server", "ca1")
    yield "server", "neither", tls()
    yield "server", "a chain from nowhere", tls(certificate_chain={}, private_key=inline(key))
    yield "server", "a chain in no file", tls(certificate_chain=file("none.pem"), private_key=file("s1.key"))
    yield "server", "a key in no file", tls(certificate_chain=file("s1.pem"), private_key=file("none.key"))
    yield "server", "a chain in an empty file", tls(certificate_chain=file("empty.pem"), private_key=file("s1.key"))
    yield "server", "garbage in a file", tls(certificate_chain=file("garbage.pem"), private_key=file("s1.key"))
    yield "server", "a key of garbage in a file", tls(certificate_chain=file("s1.pem"), private_key=file("garbage.pem"))
    yield "server", "files that do not match", tls(certificate_chain=file("s1.pem"), private_key=file("c1.key"))
    yield "server", "a file that is a directory", tls(certificate_chain={"filename": str(directory)}, private_key=file("s1.key"))
    yield "server", "a file without name", tls(certificate_chain={"filename": ""}, private_key=file("s1.key"))
    yield "server", "no variable", tls(certificate_chain={"environment_variable": "NO_SUCH"}, private_key=inline(key))
    yield "server", "a watched directory that is not there", tls(
        certificate_chain=file("s1.pem"), private_key=file("s1.key"), watched_directory={"path": str(directory / "nowhere")})
    yield "server", "a password that is not needed", s.certificate("server", "s1", password=inline("p"))
    yield "server", "PKCS#12 beside a chain", s.certificate("server", "s1", pkcs12=inline("garbage"))
    yield "server", "a staple of garbage", s.certificate("server", "s1", ocsp_staple={"inline_bytes": "Z2FyYmFnZQ=="})
    yield "server", "what is trusted", s.trust("server")
    yield "server", "ticket keys", s.secret("server", session_ticket_keys={"keys": [inline("k" * 80)]})
    yield "server", "a generic secret", s.secret("server", generic_secret={"secret": inline("x")})
    yield "server", "a name and nothing else", s.secret("server")
    yield "trust", "an empty bundle", validation(trusted_ca=inline(""))
    yield "trust", "a bundle of garbage", validation(trusted_ca=inline("garbage"))
    yield "trust", "half a bundle", validation(trusted_ca=inline(half))
    yield "trust", "a bundle of a key", validation(trusted_ca=inline(key))
    yield "trust", "a bundle from nowhere", validation(trusted_ca={})
    yield "trust", "a bundle in no file", validation(trusted_ca=file("none.pem"))
    yield "trust", "a bundle in an empty file", validation(trusted_ca=file("empty.pem"))
    yield "trust", "garbage in a bundle's file", validation(trusted_ca=file("garbage.pem"))
    yield "trust", "lists of garbage", s.trust("trust", crl=inline("garbage"))
    yield "trust", "lists without authority", validation(crl=inline("garbage"))
    yield "trust", "lists in no file", s.trust("trust", crl=file("none.pem"))
    yield "trust", "a short hash", s.trust("trust", verify_certificate_hash=["abcd"])
    yield "trust", "a hash of no digits", s.trust("trust", verify_certificate_hash=["z" * 64])
    yield "trust", "a short SPKI", s.trust("trust", verify_certificate_spki=["abcd"])
    yield "trust", "an SPKI of no base64", s.trust("trust", verify_certificate_spki=["!" * 44])
    yield "trust", "a bad regular expression", s.trust("trust", match_typed_subject_alt_names=[
        {"san_type": "DNS", "matcher": {"safe_regex": {"google_re2": {}, "regex": "(("}}}])
    yield "trust", "a matcher without kind", s.trust("trust", match_typed_subject_alt_names=[{"matcher": {"exact": "a"}}])
    yield "trust", "names without authority", validation(match_typed_subject_alt_names=[{"san_type": "DNS", "matcher": {"exact": "a"}}])
    yield "trust", "expired ones without authority", validation(allow_expired_certificate=True)
    yield "trust", "a depth out of range", s.trust("trust", max_verify_depth=101)
    yield "trust", "a validator nobody knows", s.trust("trust", custom_validator_config={
        "name": "nobody", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}}})


async def refused(s):
    """None of them makes a difference to who is served."""
    await served(s)
    before = None
    for n, (to, title, secret) in enumerate(broken(s), 3):
        if to != before:
            # What cannot be used stays in Envoy's way when another secret of the same context changes.
            s.give(s.certificate("server"), s.trust("trust"), version=f"good {n}")
            await s.note("good ones")
            before = to
        s.give(secret, version=str(n), to=to)
        await s.note(f"{title} for {to}")
    await s.note("at last", *ALL)
    s.give_all()
    await s.note("good ones again", *ALL)


async def odd(s):
    """What is accepted, and whom it serves."""
    await served(s, *ALL)
    s.give(s.certificate("server", "old"), version="3")
    await s.note("an expired certificate", "c1")
    s.give(s.trust("trust", "c1"), version="4")
    await s.note("a bundle of no authority", *ALL)
    s.give(s.trust("trust", "old"), version="5")
    await s.note("an expired bundle", *ALL)
    s.give(s.secret("trust", validation_context={}), version="6")
    await s.note("nothing is asked of clients", *ALL)
    s.give(s.secret("up_trust", validation_context={}), version="7")
    await s.note("nothing is asked of upstreams", *ALL)


async def names(s):
    await served(s)
    s.give(s.certificate("nobody"), version="2", to="server")
    await s.note("a secret nobody asked for", "c1")
    s.give(s.certificate("server", "s2"), s.certificate("nobody"), version="3", to="server")
    await s.note("one of two that nobody asked for", "c1")
    s.give(s.certificate("server", "s1"), s.certificate("server", "s2"), version="4", to="server")
    await s.note("one twice", "c1")
    s.give(version="5", to="server")
    await s.note("none", "c1")
    s.give(s.certificate(""), version="6", to="server")
    await s.note("one without name", "c1")
    if s.transport != "files":
        s.plane.send("SDS", message(endpoint_pb2.ClusterLoadAssignment, cluster_name="server"), version="7", to="server")
        await s.note("endpoints among the secrets", "c1")
        s.plane.send("SDS", version="8", to="server", url="type.googleapis.com/google.protobuf.Struct")
        await s.note("a type nobody asked for", "c1")
        s.give(s.certificate("server", "s2"), version="9", to="server", named=True)
        await s.note("one in an envelope", "c1")


async def first_refused(s):
    """A bad first answer ends the wait; a good one mends it."""
    await s.note("starts", "", seconds=1.0)
    s.give(s.certificate("client", "c1"), to="client")
    await s.note("a client's certificate")
    s.give(s.secret("up_trust", validation_context={"trusted_ca": {"inline_string": "garbage"}}), to="up_trust")
    await s.note("garbage to trust upstream", "")
    s.give(s.trust("trust"), version="2", to="trust")
    await s.note("what is trusted")
    s.give(s.certificate("server", "s1", "c1"), version="3", to="server")
    await s.note("a certificate with the key of another", *ALL)
    s.give(s.certificate("server"), version="4", to="server")
    await s.note("a good one of the listener", *ALL)
    s.give(s.trust("up_trust"), version="5", to="up_trust")
    await s.note("a good one of the cluster", *ALL)


async def impatient(s):
    """They do not come in time, then they do."""
    await s.note("starts", "", seconds=2.5)
    s.give(s.certificate("server"), s.trust("trust"))
    await s.note("those of the listener", "c1")
    s.give(s.certificate("client", "c1"), s.trust("up_trust"))
    await s.note("those of the cluster", "c1")


async def reconnects(s):
    await served(s)
    s.plane.reset()
    await s.note("the streams end", "c1", seconds=2.5)
    s.give(s.certificate("server", "s2"), s.trust("trust"), s.certificate("client", "c1"), s.trust("up_trust"), version="2")
    await s.note("they go on", "c1")


async def away(s):
    await served(s)
    s.steps.append(f"  kept from now on: {s.keep('c1')}")
    await s.plane.stop()
    await asyncio.sleep(0.3)
    await s.plane.start()
    await s.note("the control plane comes back", "c1", seconds=3.0)
    s.give_all()
    await s.note("the same", "c1")
    s.give(s.certificate("server", "s2"), s.trust("trust", "ca2"), version="2")
    await s.note("others", "c2")


async def shared(s):
    """Two listeners and two clusters of the same secrets."""
    await served(s)
    s.steps.append(f"  the other: {s.connect('c1', 'in2')}")
    s.give(s.certificate("server", "s2"), s.trust("trust"), s.certificate("client", "c2"), s.trust("up_trust"), version="2")
    await s.note("others", "c1")
    s.steps.append(f"  the other: {s.connect('c1', 'in2')}")


async def combined(s):
    """A validation context of two parts."""
    await served(s, *ALL)
    s.give(s.trust("trust", match_typed_subject_alt_names=[{"san_type": "DNS", "matcher": {"exact": "c2.test"}}]), version="2")
    await s.note("another name", *ALL)
    s.give(s.trust("trust", "ca2"), version="3")
    await s.note("another authority", *ALL)
    s.give(s.secret("trust", validation_context={}), version="4")
    await s.note("no authority", *ALL)
    s.give(s.trust("trust"), version="5")
    await s.note("the first again", *ALL)


def combination(s):
    """A listener and a cluster whose validation contexts name peers, and find whom they trust."""
    def combined_of(name, matcher):
        return {"trust": None, "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": matcher}]},
            "validation_context_sds_secret_config": s.named(name)}}
    return ([s.server(**s.downstream(**combined_of("trust", {"exact": "c1.test"})))],
            [s.peer(**s.upstream_tls(**combined_of("up_trust", {"prefix": "u"})))])


async def tickets(s):
    key = lambda letter: {"inline_string": letter * 80}
    keys = lambda *letters: s.secret("tickets", session_ticket_keys={"keys": [key(letter) for letter in letters]})
    await s.note("starts", seconds=1.5)
    s.give_all()
    await s.note("all but the keys", "")
    s.give(keys("a"))
    await s.note("the keys", "c1")
    s.give(keys("b", "a"), version="2")
    await s.note("more keys", "c1")
    s.give(s.secret("tickets", session_ticket_keys={"keys": [{"inline_string": "short"}]}), version="3", to="tickets")
    await s.note("a short key", "c1")
    s.give(s.secret("tickets", session_ticket_keys={}), version="4", to="tickets")
    await s.note("no key", "c1")
    s.give(s.secret("tickets", session_ticket_keys={"keys": [{"inline_string": ""}]}), version="5", to="tickets")
    await s.note("an empty key", "c1")
    s.give(s.secret("tickets", session_ticket_keys={"keys": [{"filename": "/no/such/file"}]}), version="6", to="tickets")
    await s.note("a key in no file", "c1")


async def changes(s):
    """Listeners and clusters come and change, with secrets that are there and that are not."""
    await s.note("starts", seconds=1.5)
    s.plane.send("CDS", s.cluster_resource(s.peer()))
    await s.note("a cluster")
    s.give(s.certificate("client", "c1"), s.trust("up_trust"))
    await s.note("its secrets")
    s.plane.send("LDS", s.listener_resource(s.server()))
    await s.note("a listener", "c1")
    s.give(s.certificate("client", "c1"), s.trust("up_trust"), s.certificate("server"), s.trust("trust"), version="2")
    await s.note("its secrets", "c1")
    s.plane.send("LDS", s.listener_resource(s.server(**s.downstream("server2"))), version="2")
    await s.note("the listener with another certificate", "c1")
    s.give(s.certificate("server2", "s2"), s.certificate("client", "c1"), s.trust("up_trust"), s.trust("trust"), version="3")
    await s.note("which comes", "c1")
    s.plane.send("CDS", s.cluster_resource({**s.peer(), **s.upstream_tls("client2")}), version="2")
    await s.note("the cluster with another certificate", "c1")
    s.give(s.certificate("server2", "s2"), s.certificate("client2", "c2"), s.trust("up_trust"), s.trust("trust"), version="4")
    await s.note("which comes", "c1")
    s.plane.send("CDS", s.cluster_resource({**s.peer(), **s.upstream_tls("client2"), "connect_timeout": "3s"}), version="3")
    await s.note("the cluster with the same secrets", "c1")
    s.plane.send("LDS", s.listener_resource(s.server(**s.downstream("client2"))), version="3")
    await s.note("the listener with the cluster's secret", "c1")
    if s.api == "GRPC":
        s.plane.send("LDS", version="4")
    else:
        s.plane.send("LDS", version="4", removed=["in"])
    await s.note("the listener leaves", seconds=1.2)


async def unready(s):
    """A listener and a cluster whose secrets never come, beside others."""
    await s.note("starts", seconds=1.5)
    s.plane.send("CDS", s.cluster_resource(s.peer()))
    await s.note("a cluster", seconds=2.0)
    s.plane.send("LDS", s.listener_resource(s.server()))
    await s.note("a listener", "c1", seconds=2.0)
    s.give(s.certificate("server"), s.trust("trust"), s.certificate("client", "c1"), s.trust("up_trust"))
    await s.note("secrets", "c1")


async def files_of_secrets(s):
    """Secrets that name files, in a directory that is swapped as Kubernetes does it."""
    directory = s.directory / "certificates"
    directory.mkdir()

    def swap(generation, **of):
        new = directory / f"..{generation}"
        new.mkdir()
        for name, source in of.items():
            for kind in ("pem", "key"):
                (new / f"{name}.{kind}").write_text(s.pki.text(f"{source}.{kind}"))
        link = directory / "..new"
        link.symlink_to(new.name)
        link.rename(directory / "..data")

    swap(1, server="s1", trust="ca1")
    for name in ("server.pem", "server.key", "trust.pem"):
        (directory / name).symlink_to(f"..data/{name}")
    watched = {"watched_directory": {"path": str(directory)}}
    file = lambda name: {"filename": str(directory / name)}
    await s.note("starts", seconds=1.5)
    pair = {"certificate_chain": file("server.pem"), "private_key": file("server.key")}
    s.give(s.secret("server", tls_certificate={**pair, **watched}),
           s.secret("trust", validation_context={"trusted_ca": file("trust.pem"), **watched}),
           s.certificate("client", "c1"), s.trust("up_trust"))
    await s.note("secrets of files", *ALL)
    swap(2, server="s2", trust="ca1")
    await s.note("another certificate", "c1", seconds=1.0)
    swap(3, server="s2", trust="ca2")
    await s.note("another authority", *ALL, seconds=1.0)
    (directory / "..3" / "server.pem").write_text(s.pki.text("s1.pem"))
    await s.note("one written over", "c1", seconds=1.0)
    link = directory / "..again"
    link.symlink_to("..3")
    link.rename(directory / "..data")
    await s.note("which does not match its key", "c1", seconds=1.0)
    swap(4, server="s1", trust="ca1")
    await s.note("both match", *ALL, seconds=1.0)
    (directory / "..4" / "server.key").unlink()
    link.symlink_to("..4")
    link.rename(directory / "..data")
    await s.note("the key is gone", "c1", seconds=1.0)


async def plain_files(s):
    """Secrets that name files which are moved into place one by one."""
    directory = s.directory / "certificates"
    directory.mkdir()

    def put(name, source):
        (s.directory / "put").write_text(s.pki.text(source))
        (s.directory / "put").rename(directory / name)

    put("server.pem", "s1.pem")
    put("server.key", "s1.key")
    put("trust.pem", "ca1.pem")
    file = lambda name: {"filename": str(directory / name)}
    await s.note("starts", seconds=1.5)
    s.give(s.secret("server", tls_certificate={"certificate_chain": file("server.pem"), "private_key": file("server.key")}),
           s.secret("trust", validation_context={"trusted_ca": file("trust.pem")}),
           s.certificate("client", "c1"), s.trust("up_trust"))
    await s.note("secrets of files", *ALL)
    put("server.pem", "s2.pem")
    await s.note("the certificate of another", "c1", seconds=1.0)
    put("server.key", "s2.key")
    await s.note("and its key", "c1", seconds=1.0)
    put("trust.pem", "ca2.pem")
    await s.note("another authority", *ALL, seconds=1.0)
    (directory / "trust.pem").write_text(s.pki.text("ca1.pem"))
    await s.note("one written over", *ALL, seconds=1.0)
    put("other.pem", "ca1.pem")
    await s.note("another file is moved there", *ALL, seconds=1.0)
    put("trust.pem", "ca1.key")
    await s.note("a key to trust", *ALL, seconds=1.0)


async def documents(s):
    """What else a file may hold."""
    await served(s)
    s.write("server", text="{ not json")
    await s.note("an unreadable file", "c1")
    s.write("server", text="")
    await s.note("an empty file", "c1")
    s.write("server", text='{"resources": 7}')
    await s.note("a file of something else", "c1")
    s.write("server", s.certificate("server", "s2"), version="2")
    await s.note("a good file", "c1")


GRPC = ("ads", "delta-ads", "own", "delta-own", "unix")
EVERY = (*GRPC, "files")

# Envoy shows, counts and measures what it refused, and goes on with what was before.
REFUSED = {"left": r"_secrets |/certs|expiration_unix|ssl_context_update_by_sds"}

SCENARIOS = {
    "arrive": (arrive, GRPC, {}),
    "rotate": (rotate, EVERY, {}),
    "same": (same, EVERY, {}),
    "gone": (gone, GRPC[:4], {}),
    "refused": (refused, ("ads", "delta-own", "files"), REFUSED),
    "odd": (odd, ("ads", "files"), {}),
    "names": (names, EVERY, {}),
    # Over an aggregated delta stream it is now and then the end of Envoy 1.40.
    "first_refused": (first_refused, [variant for variant in EVERY if variant != "delta-ads"], REFUSED),
    "impatient": (impatient, GRPC, {"fetch": "1s"}),
    "patient": (impatient, ("ads", "delta-own"), {"fetch": "0s"}),
    "reconnects": (reconnects, GRPC, {"left": "update_(attempt|failure)"}),
    "away": (away, GRPC, {"left": "update_(attempt|failure)"}),
    "shared": (shared, EVERY, {"static": lambda s: ([s.server(), s.server("in2", "b")], [s.peer(), s.peer("b")])}),
    "combined": (combined, ("ads", "files"), {"static": combination}),
    "tickets": (tickets, ("ads", "files"), {"static": lambda s: (
        [s.server(**s.downstream(beside={"session_ticket_keys_sds_secret_config": s.named("tickets")}))], [s.peer()])}),
    "changes": (changes, GRPC[:4], {"dynamic": True, "static": lambda s: ([], [])}),
    "unready": (unready, GRPC[:2], {"dynamic": True, "fetch": "1s", "static": lambda s: ([], [])}),
    "files_of_secrets": (files_of_secrets, ("ads", "files"), {"left": "_secrets "}),
    "plain_files": (plain_files, ("ads",), {"left": "_secrets "}),
    "documents": (documents, ("files",), {}),
}
