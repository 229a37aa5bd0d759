"""An nginx that really runs: its mail proxy in front of a service, on a port of 127.0.0.1.

nginx asks an HTTP server of ours whether a login is good and where it is to go, and tells the
service by XCLIENT who the client is.  :meth:`Nginx.stop` ends the process that was started, by its
pid, and the HTTP server.
"""

from __future__ import annotations

import getpass
import http.server
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import unquote

from tests.clients.case import ADA
from tests.clients.running import HOST, RunningService, freePorts

START = 20.0
"""Seconds until it takes connections."""

# Debian has it as a module of its own; other builds have it within.
MODULE = Path("/usr/lib/nginx/modules/ngx_mail_module.so")

_CONFIG = """\
daemon off;
master_process off;
user {user};
pid {directory}/nginx.pid;
error_log {directory}/nginx.log info;
events {{ worker_connections 64; }}
mail {{
    server_name proxy.example.org;
    auth_http 127.0.0.1:{asked}/;
    smtp_auth login plain;
    smtp_capabilities PIPELINING 8BITMIME SMTPUTF8 DSN CHUNKING "SIZE 26214400";
    ssl_certificate {directory}/certificate.pem;
    ssl_certificate_key {directory}/private_key.pem;
    server {{ listen 127.0.0.1:{port}; protocol smtp; starttls only; }}
}}
"""


def hasMail(program: str) -> bool:
    """Whether this nginx has a mail proxy."""
    if MODULE.exists():
        return True
    told = subprocess.run([program, "-V"], capture_output=True, timeout=10, check=False)
    return b"--with-mail" in told.stderr.split()


class _Asked(http.server.BaseHTTPRequestHandler):
    """Lets ADA in, and tells where the service is (ngx_mail_auth_http_module)."""

    behind = 0

    def do_GET(self) -> None:
        """One login."""
        name, secret = (unquote(self.headers[f"Auth-{part}"]) for part in ("User", "Pass"))
        self.send_response(200)
        if (name, secret) == (ADA.name, ADA.secret):
            self.send_header("Auth-Status", "OK")
            self.send_header("Auth-Server", HOST)
            self.send_header("Auth-Port", str(self.behind))
        else:
            self.send_header("Auth-Status", "not by this password")
            self.send_header("Auth-Wait", "1")  # or it closes the connection
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


class Nginx:
    """One process.

    :param program: the path of nginx.
    :param service: what is behind it.
    :param behind: its port, without TLS.
    :ivar port: where nginx takes connections.
    """

    def __init__(self, program: str, service: RunningService, behind: int) -> None:
        self._log = service.directory / "nginx.log"
        asked = type("Asked", (_Asked,), {"behind": behind})
        self._server = http.server.ThreadingHTTPServer((HOST, 0), asked)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        with freePorts(1) as [self.port]:
            text = _CONFIG.format(
                user=getpass.getuser(),
                directory=service.directory,
                asked=self._server.server_port,
                port=self.port,
            )
            if MODULE.exists():
                text = f"load_module {MODULE};\n{text}"
            config = service.directory / "nginx.conf"
            config.write_text(text, encoding="utf-8")
            self._process = subprocess.Popen(
                [program, "-c", str(config), "-e", str(self._log)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + START
        while True:
            try:
                socket.create_connection((HOST, self.port), 5).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise AssertionError(self._log.read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._server.shutdown()
        self._server.server_close()
