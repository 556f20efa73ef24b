"""A real SPIRE server and agent: certificates that live for seconds, for workloads told apart by their binaries' paths.

Everything of them is in one directory. The server's authority is replaced by its own commands: a new one is prepared
(both are trusted), activated (it signs), and the one before tainted (what it signed is replaced) and revoked (it is
trusted no more).
"""

import asyncio
import json
import pathlib
import re
import subprocess
import time

from peers import free_port

DOMAIN = "mesh.test"
# SPIRE adds ten seconds to the past of a certificate and makes a new one when half of the whole is over.
CERTIFICATE_SECONDS = 20


def identity(name):
    return f"spiffe://{DOMAIN}/{name}"


class Spire:
    """A server and an agent. They end with the `with` block."""

    def __init__(self, binaries, directory):
        self.directory = pathlib.Path(directory)
        self.server_binary, self.agent_binary = (pathlib.Path(binaries) / f"spire-{it}" for it in ("server", "agent"))
        self.server_socket, self.socket = self.directory / "server.sock", self.directory / "agent.sock"
        self.bundle_file = self.directory / "bundle.pem"
        self.port = free_port()
        self.server = self.agent = None

    async def __aenter__(self):
        try:
            await self.start_server()
            await self.start_agent(await self.join_token())
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(self, *_):
        self.stop()

    def stop(self):
        for process in filter(None, (self.agent, self.server)):
            process.kill()
            process.wait()

    async def start_server(self):
        plain = f"""
server {{
    bind_address = "127.0.0.1"
    bind_port = "{self.port}"
    socket_path = "{self.server_socket}"
    trust_domain = "{DOMAIN}"
    data_dir = "{self.directory}/server"
    log_level = "INFO"
    ca_ttl = "24h"
    default_x509_svid_ttl = "1h"
    experimental {{ cache_reload_interval = "1s" }}
}}
plugins {{
    DataStore "sql" {{ plugin_data {{ database_type = "sqlite3", connection_string = "{self.directory}/server.sqlite3" }} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
        self.server = self.run("server", self.server_binary, plain)
        await self.healthy(self.server, self.server_binary, self.server_socket)
        await self.bundle()

    async def start_agent(self, token=None):
        """The agent, for the first time with a token; later it knows who it is."""
        plain = f"""
agent {{
    data_dir = "{self.directory}/agent"
    log_level = "INFO"
    server_address = "127.0.0.1"
    server_port = "{self.port}"
    socket_path = "{self.socket}"
    trust_bundle_path = "{self.bundle_file}"
    trust_domain = "{DOMAIN}"
    experimental {{ sync_interval = "1s" }}
}}
plugins {{
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "disk" {{ plugin_data {{ directory = "{self.directory}/agent" }} }}
    WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"""
        self.agent = self.run("agent", self.agent_binary, plain, *(["-joinToken", token] if token else []))
        await self.healthy(self.agent, self.agent_binary, self.socket)

    def run(self, name, binary, config, *more):
        (self.directory / name).mkdir(exist_ok=True)
        file = self.directory / f"{name}.conf"
        file.write_text(config)
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen([binary, "run", "-config", file, *more], stdout=log, stderr=log)

    async def healthy(self, process, binary, socket, within=30):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{binary.name} ended: {self.log(binary.name[6:])[-3:]}")
            check = await asyncio.create_subprocess_exec(
                binary, "healthcheck", "-socketPath", socket, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if await check.wait() == 0:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{binary.name} did not become healthy within {within} s")

    async def tell(self, *command):
        """A command to the server; what it prints."""
        words = [self.server_binary, *command, "-socketPath", self.server_socket]
        process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed = (await process.communicate())[0].decode()
        if process.returncode:
            raise RuntimeError(f"spire-server {' '.join(command)}: {printed}")
        return printed

    async def join_token(self):
        printed = await self.tell("token", "generate", "-spiffeID", identity("agent"), "-output", "json")
        return json.loads(printed)["value"]

    async def workload(self, name, binary):
        """Whoever runs this binary is `name`."""
        await self.tell("entry", "create", "-parentID", identity("agent"), "-spiffeID", identity(name),
                        "-selector", f"unix:path:{binary}", "-x509SVIDTTL", str(CERTIFICATE_SECONDS))

    async def bundle(self):
        """What the server says is trusted, as PEM."""
        pem = await self.tell("bundle", "show")
        self.bundle_file.write_text(pem)
        return pem

    async def authority(self, step):
        """One step of replacing the authority: prepare, activate, taint or revoke."""
        state = json.loads(await self.tell("localauthority", "x509", "show", "-output", "json"))
        chosen = {"activate": "prepared", "taint": "old", "revoke": "old"}.get(step)
        which = ["-authorityID", state[chosen]["authority_id"]] if chosen else []
        await self.tell("localauthority", "x509", step, *which, "-output", "json")

    def kill_agent(self):
        """As a crash does."""
        self.agent.kill()
        self.agent.wait()

    def log(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace").splitlines()

    def refusals(self):
        """What the agent wrote about updates that a proxy refused."""
        refused = re.compile("reported errors applying secrets|rejected expected version")
        return [line for line in self.log("agent") if refused.search(line)]
