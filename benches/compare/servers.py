"""The relay, its rivals and what stands behind them, as processes that end with this one."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# Where Debian has nginx's modules.
NCHAN = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# How long a server may take to start, and to stop.
SOON = 20.0

# How long a command of the load tool may take that is not asked for more.
LIMIT = 300.0

# A front sets these; the relay sets as much.
NGINX_PROXY = """
    upstream origin {{
        server {origin};
        keepalive 256;
        keepalive_requests 100000000;
    }}
    server {{
        listen {address} backlog=4096;
        keepalive_requests 100000000;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            # Bodies that a client is slow to take wait in the origin, not on the disk.
            proxy_max_temp_file_size 0;
        }}
    }}
"""

NGINX_NCHAN = """
    server {{
        listen {address} backlog=4096;
        keepalive_requests 100000000;
        location = /pub {{
            nchan_publisher;
            nchan_channel_id events;
            nchan_message_buffer_length 10000;
            nchan_message_timeout 1m;
        }}
        location = /sub {{
            nchan_subscriber eventsource;
            nchan_channel_id events;
        }}
    }}
"""

NGINX = """
{modules}
user {user};
worker_processes {workers};
worker_rlimit_nofile {files};
error_log {folder}/error.log error;
pid {folder}/pid;
daemon off;
events {{
    worker_connections {connections};
    multi_accept on;
}}
http {{
    access_log off;
    tcp_nodelay on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""

HAPROXY = """
global
    maxconn 8000
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind {address} backlog 4096
    default_backend origin
backend origin
    server origin {origin}
"""


class Server:
    """A running program and where it listens."""

    def __init__(self, process, url):
        self.process, self.url = process, url

    @property
    def pid(self):
        return str(self.process.pid)


class Bench:
    """What measures: the builds, and a folder on disk. Everything it starts ends when it is closed."""

    def __init__(self, relay, load, stack):
        self.relay_program, self.load_program = relay, load
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="side-by-side-")))
        # nginx's workers give their rights up, and go through it.
        self.folder.chmod(0o755)
        self.numbers = iter(range(1 << 30))

    def load(self, *words, limit=LIMIT):
        """Runs a command of the load tool, for so many seconds at most; its figures by name."""
        done = subprocess.run([self.load_program, *map(str, words)], stdout=subprocess.PIPE, check=True, timeout=limit)
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def subject(self, name):
        """A server with an origin behind it, named like the function that starts it; yields both. `direct` is the origin."""
        with contextlib.ExitStack() as stack:
            if name == "nchan":
                server = stack.enter_context(self.nchan())
                yield server, stack.enter_context(self.origin("--publish", f"{server.url}/pub"))
            else:
                origin = stack.enter_context(self.origin())
                yield (origin if name == "direct" else stack.enter_context(getattr(self, name)(origin))), origin

    @contextlib.contextmanager
    def origin(self, *words):
        with self.serving("origin", *words) as server:
            yield server

    def bare_proxy(self, origin):
        return self.bare("bare-proxy", origin.url)

    def bare_hyper(self, origin):
        return self.bare("bare-hyper", origin.url)

    def bare_events(self, origin):
        return self.bare("bare-events", f"{origin.url}/global/event")

    def bare(self, name, upstream):
        # As many threads as nginx has workers.
        return self.serving(name, upstream, "--threads", os.cpu_count())

    @contextlib.contextmanager
    def serving(self, *words):
        """A server of the load tool, which says where it listens."""
        with self.running([self.load_program, *words], stdout=subprocess.PIPE) as process:
            yield Server(process, process.stdout.readline().decode().split()[-1])

    @contextlib.contextmanager
    def relay(self, origin):
        address = free_address()
        with self.running(self.relay_command(address, origin)) as process:
            yield self.ready(process, address)

    @contextlib.contextmanager
    def by_log(self):
        """A relay that has nothing but the bus log and the state; yields it and its origin."""
        log, address = self.scratch() / "bus.log", free_address()
        with self.origin("--log", log) as origin:
            command = self.relay_command(address, origin, "--witness", "log", "--log", f"file:{log}")
            with self.running(command) as process:
                yield self.ready(process, address), origin

    def relay_command(self, address, origin, *witness):
        """As it is run beside an opencode that announces nothing in its log, with its journal on disk."""
        return [self.relay_program, "run", "--listen", address, "--upstream", origin.url, *(witness or ("--log", "none")),
                "--state-dir", str(self.scratch()), "--log-level", "error"]

    def ready(self, process, address):
        """A relay that follows its origin: before, it lets nobody through."""
        wait(process, lambda: urllib.request.urlopen(f"http://{address}/_relay/ready", timeout=SOON).status == 200)
        return Server(process, f"http://{address}")

    @contextlib.contextmanager
    def haproxy(self, origin):
        address = free_address()
        config = self.scratch() / "haproxy.cfg"
        config.write_text(HAPROXY.format(address=address, origin=origin.url.removeprefix("http://")))
        with self.running(["haproxy", "-db", "-f", str(config)]) as process:
            yield self.listening(process, address)

    @contextlib.contextmanager
    def nginx(self, origin):
        with self.nginx_with("", NGINX_PROXY, origin=origin.url.removeprefix("http://")) as server:
            yield server

    @contextlib.contextmanager
    def nchan(self):
        with self.nginx_with(f"load_module {NCHAN};", NGINX_NCHAN) as server:
            yield server

    @contextlib.contextmanager
    def nginx_with(self, modules, server, **values):
        address, folder = free_address(), self.scratch()
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(
            modules=modules, folder=folder, user="root" if os.geteuid() == 0 else "nobody", workers="auto", files=20000,
            connections=8000, server=server.format(address=address, **values)))
        with self.running(["nginx", "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]) as process:
            yield self.listening(process, address)

    def listening(self, process, address):
        """A server that answers, with whatever: nginx listens before it has workers."""
        def answers():
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://{address}/none", timeout=SOON).close()
            return True

        wait(process, answers)
        return Server(process, f"http://{address}")

    def scratch(self):
        """An empty folder."""
        folder = self.folder / str(next(self.numbers))
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def running(self, command, stdout=subprocess.DEVNULL):
        """The program, asked to end and then made to, also when this process is killed."""
        process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)],
                                   stdin=subprocess.PIPE, stdout=stdout)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(SOON)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
            if process.stdout:
                process.stdout.close()


def wait(process, is_there):
    """Waits for a server."""
    end = time.monotonic() + SOON
    while True:
        try:
            if is_there():
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args} does not serve")
        time.sleep(0.01)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def first(*command):
    """What a command says first; nothing of a command that fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[:1]


def versions(relay):
    """What was compared."""
    commit = first("git", "rev-parse", "--short", "HEAD")
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip().split("/")[-1]
    haproxy = first("haproxy", "-v")[0].split()[2]
    nchan = first("dpkg-query", "-W", "-f", "${Version}\n", "libnginx-mod-nchan") if shutil.which("dpkg-query") else []
    relay = " at ".join([first(relay, "--version")[0].split()[-1], *commit])
    return {"opencode-relay": relay, "nginx": nginx, "HAProxy": haproxy, "nchan": nchan[0] if nchan else "of an unknown version"}
