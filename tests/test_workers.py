"""Several processes: the real service, with clients that see what a worker's end would break."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from passlib.hash import sha512_crypt
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from submitd.tls import selfSigned
from tests import running

DATA = Path(__file__).with_name("data")

SETTINGS = """
hostname = "mail.example.com"
workers = {workers}
banner = "{banner}"

[[listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
require_tls = false

[[listener]]
endpoint = "tcp:{implicit}:interface=127.0.0.1"
tls = "implicit"

[[listener]]
endpoint = "unix:{socket}"
tls = "off"
require_tls = false

[tls]
certificate = "{data}/certificate.pem"
private_key = "{directory}/key.pem"

[auth]
required = false
insecure = true
checkers = ["htpasswd:passwd"]

[log]
json = "events.json"

[delivery]
use = "spool"
path = "spool"

{rest}
"""

# What systemd does for a service that has a socket unit.
ACTIVATE = """
import os
os.dup2({}, 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
"""

RELAY = """
[relay]
maildir = "{directory}/{{local}}"
lease = "1 min"
"""


class Service(running.Process):
    """The service with workers.

    :param rest: sections behind the others.
    :param activated: a socket that listens already, in place of the first port.
    :param inBackground: whether its child ends when it serves, as twistd does without ``-n``.
    """

    def __init__(
        self,
        directory: Path,
        rest: str = "",
        workers: int = 2,
        *options: str,
        activated: socket.socket | None = None,
        inBackground: bool = False,
    ) -> None:
        self.activated = activated
        self.directory = directory.absolute()
        self.directory.mkdir(exist_ok=True)
        self.port, self.implicit, self.other = running.freePorts(3)
        # Short wherever the tests run: their own directory alone may be too long for a socket.
        self.shortDirectory = Path(tempfile.mkdtemp(prefix="submitd-", dir="/tmp"))
        self.shortDirectory.chmod(0o777)
        self.socket = str(self.shortDirectory / "socket")
        if activated is not None:
            self.port = activated.getsockname()[1]
        key = self.directory / "key.pem"
        key.write_bytes((DATA / "private_key.pem").read_bytes())
        key.chmod(0o600)
        self.setPassword("first")
        self.write(rest, workers)
        if "--uid" in options:
            os.chown(self.directory / "passwd", 65534, 65534)
        temporary = self.directory / "tmp"
        temporary.mkdir()
        temporary.chmod(0o777)
        environment = {**running.environment(), "TMPDIR": str(temporary)}
        command = running.twistd(*options, "submitd", "--config", "submitd.toml")
        if inBackground:
            command.remove("--nodaemon")
        files = []
        if activated is not None:
            files = [activated.fileno()]
            at = command.index(running.TWISTD)
            command[at] = ACTIVATE.format(activated.fileno()) + command[at]
        super().__init__(command, self.directory, environment, files)

    def write(self, rest: str = "", workers: int = 2, banner: str = "one") -> None:
        """Write the configuration."""
        words: dict[str, Any] = {
            "workers": workers,
            "banner": banner,
            "port": self.port,
            "implicit": self.implicit,
            "directory": self.directory,
            "socket": self.socket,
            "data": DATA,
            "rest": rest.format(directory=self.directory, other=self.other),
        }
        text = SETTINGS
        if self.activated is not None:
            text = text.replace("tcp:{port}:interface=127.0.0.1", "systemd:domain=INET:index=0")
        (self.directory / "submitd.toml").write_text(text.format(**words))

    def read(self, name: str) -> str:
        """What is in a file; nothing where there is none."""
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def setPassword(self, password: str) -> None:
        """Give the user another password."""
        file = self.directory / "passwd"
        new = self.directory / "passwd.new"
        new.write_text(f"alice:{sha512_crypt.using(rounds=1000).hash(password)}\n")
        new.chmod(0o600)
        new.rename(file)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What is in the log."""
        file = self.directory / "events.json"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [json.loads(line) for line in lines]
        return [each for each in found if not name or each["event"] == name]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait for something.

        :raise AssertionError: when it does not come.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"waited in vain:\n{self.output}")

    def live(self) -> dict[str, int]:
        """The workers that serve: name -> process id."""
        found = {}
        for event in self.events():
            if event["event"] == "worker-started":
                found[event["worker"]] = event["process"]
            elif (
                event["event"] in ("worker-ended", "worker-died")
                and found.get(event["worker"]) == event["process"]
            ):
                del found[event["worker"]]
        return found

    def waitForWorkers(self, count: int) -> dict[str, int]:
        """Wait until so many serve."""
        found: dict[str, int] = self.until(lambda: len(self.live()) == count and self.live())
        return found

    def reload(self) -> None:
        """Have the configuration read again."""
        self.child.send_signal(signal.SIGHUP)

    def client(self) -> smtplib.SMTP:
        """A client that has been greeted."""
        return smtplib.SMTP("127.0.0.1", self.port, timeout=60)

    def send(self, number: int, client: smtplib.SMTP | None = None) -> None:
        """Send a message with a number."""
        own = client or self.client()
        text = f"Subject: {number}\r\nMessage-ID: <{number}@example.com>\r\n\r\nx\r\n"
        own.sendmail("a@example.com", ["inbox@example.org"], text)
        if client is None:
            own.quit()

    def delivered(self) -> list[int]:
        """The numbers of the messages that were delivered."""
        found = []
        for path in self.directory.glob("inbox/new/*"):
            match = re.search(rb"^Subject: (\d+)", path.read_bytes(), re.MULTILINE)
            assert match is not None
            found.append(int(match[1]))
        return sorted(found)


def isAlive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started, those that have ended unnoticed among them."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> set[int]:
    """A process, and all that have come from it."""
    found = {pid}
    for child in children(pid):
        found |= family(child)
    return found


def openFiles(pid: int) -> int:
    """How many files it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def settledFiles(pids: set[int]) -> dict[int, int]:
    """How many each has open, once that stays: a queue is opened some time behind the start."""
    found: dict[int, int] = {}
    while (now := {pid: openFiles(pid) for pid in pids}) != found:
        found = now
        time.sleep(1)
    return found


def connections(pid: int) -> int:
    """How many of its sockets are connected by TCP on loopback, seen from the server's side."""
    count = 0
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        count += fields[3] == "01" and fields[9] in inodes
    return count


class WorkersTests(TestCase):
    """Each test has a service of its own; its clients are in a thread."""

    timeout = 300

    def service(self, directory: Path, *arguments: Any, **words: Any) -> Service:
        """A service that ends with the test."""
        service = Service(directory, *arguments, **words)
        self.addCleanup(shutil.rmtree, service.shortDirectory)
        self.addCleanup(service.stop)
        return service

    def start(self, rest: str = "", workers: int = 2, *options: str) -> Service:
        """Start a service, and wait until all of its workers serve."""
        service = self.service(Path(self.mktemp()), rest, workers, *options)
        service.waitForWorkers(workers + ("[relay]" in rest))
        return service

    async def test_serve(self) -> None:
        """All workers serve all listeners; at SIGTERM they end, and nothing is left."""
        await deferToThread(self.serve)

    def serve(self) -> None:
        service = self.start(RELAY)
        clients = [service.client() for _ in range(30)]
        workers = service.live()
        held = {name: connections(pid) for name, pid in workers.items()}
        self.assertEqual(sum(held.values()), 30)
        self.assertGreater(min(held["1"], held["2"]), 5, held)
        self.assertEqual(held["relay"], 0)
        for number, client in enumerate(clients):
            service.send(number, client)
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(service.socket)
            self.assertTrue(local.recv(1000).startswith(b"220 "))
        # The relay is told, rather than to look every half a minute.
        service.until(lambda: service.delivered() == list(range(30)), 20)
        self.assertEqual(service.stop(), -signal.SIGTERM)
        service.until(lambda: not any(map(isAlive, workers.values())))
        self.assertEqual(list((service.directory / "tmp").iterdir()), [])
        self.assertFalse(os.path.exists(service.socket))
        ids = [event["session"] for event in service.events("message-accepted")]
        self.assertEqual(len(set(ids)), 30)
        for client in clients:
            client.close()

    async def test_killed(self) -> None:
        """What was answered 250 is delivered, once, although workers are killed meanwhile."""
        await deferToThread(self.killed)

    def killed(self) -> None:
        service = self.start(RELAY, workers=3)
        client = service.client()
        for number in range(300):
            if number in (60, 150, 220):
                name = {60: "1", 150: "relay", 220: "2"}[number]
                os.kill(service.live()[name], signal.SIGKILL)
            while True:
                try:
                    service.send(number, client)
                    break
                except (smtplib.SMTPException, OSError):
                    client.close()
                    client = service.client()
            if number % 7 == 0:
                client.close()
                client = service.client()
        client.close()
        service.until(lambda: len(set(service.delivered())) == 300, 60)
        died = {event["worker"]: event["cause"] for event in service.events("worker-died")}
        self.assertEqual(died, {"1": "signal 9", "2": "signal 9", "relay": "signal 9"})
        service.waitForWorkers(4)
        delivered = service.delivered()
        # The relay was killed between a delivery and its record at worst: the log names those.
        doubled = {number for number in delivered if delivered.count(number) > 1}
        takenOver = len(service.events("lease-taken-over"))
        self.assertLessEqual(len(doubled), takenOver * 100)
        ids = [event["id"] for event in service.events("message-accepted")]
        self.assertEqual(len(set(ids)), len(ids))

    async def test_reload(self) -> None:
        """SIGHUP: other workers serve what is new, and sessions of before go on to their end."""
        await deferToThread(self.reload)

    def reload(self) -> None:
        service = self.start(RELAY)
        before = service.live()
        clients = [service.client() for _ in range(6)]
        for client in clients:
            client.ehlo("x")
            client.mail("a@example.com")
            client.rcpt("inbox@example.org")
            self.assertEqual(client.docmd("DATA")[0], 354)
        service.write(RELAY + "[limits]\nmessage_size = 5000\n", 3, "two")
        service.reload()
        # Behind each other, clients see the old or the new one, and never none.
        while not service.events("service-reloaded"):
            client = service.client()
            self.assertEqual(client.ehlo("x")[0], 250)
            client.close()
        for number, client in enumerate(clients):
            client.send(f"Subject: {number}\r\n\r\nx\r\n.\r\n".encode())
            self.assertEqual(client.getreply()[0], 250)
            client.close()
        service.until(lambda: service.delivered() == list(range(6)))
        service.until(lambda: not any(map(isAlive, before.values())))
        after = service.waitForWorkers(4)
        self.assertEqual(set(after) - set(before), {"3"})
        client = service.client()
        self.assertIn(b"5000", client.ehlo("x")[1])
        client.close()

    async def test_reloadBroken(self) -> None:
        """A configuration with mistakes changes nothing; each of them is logged."""
        await deferToThread(self.reloadBroken)

    def reloadBroken(self) -> None:
        service = self.start()
        before = service.live()
        service.write('[dns]\ntimeout = "soon"\n[limits]\nconnections = -1\n')
        service.reload()
        service.until(lambda: len(service.events("service-not-reloaded")) == 2)
        problems = [event["problem"] for event in service.events("service-not-reloaded")]
        self.assertIn("dns.timeout", problems[0])
        self.assertIn("limits.connections", problems[1])
        # A port that cannot be had is one, too.
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        listener = '[[listener]]\nendpoint = "tcp:{}:interface=127.0.0.1"\ntls = "off"\n'
        listener += "require_tls = false\n"
        service.write(listener.format(taken.getsockname()[1]))
        service.reload()
        service.until(lambda: len(service.events("service-not-reloaded")) == 3)
        self.assertEqual(service.live(), before)
        service.send(1)
        # And a good one is taken behind that, with a port more.
        service.write(listener.format(service.other))
        service.reload()
        service.until(lambda: service.events("service-reloaded"))
        smtplib.SMTP("127.0.0.1", service.other, timeout=60).quit()
        service.write()
        service.reload()
        service.until(lambda: len(service.events("service-reloaded")) == 2)
        self.assertRaises(ConnectionRefusedError, smtplib.SMTP, "127.0.0.1", service.other)

    async def test_hurried(self) -> None:
        """Reloads as fast as one can ask, one template killed, and an end in the midst of one."""
        await deferToThread(self.hurried)

    def isSettled(self, parent: int, count: int) -> bool:
        """Whether there is one template with its workers, and no other on its way."""
        found = family(parent)
        time.sleep(0.5)
        return (len(found), len(set(children(parent)))) == (count, 1) and family(parent) == found

    def hurried(self) -> None:
        service = self.start(RELAY)
        parent = service.child.pid
        relay = service.live()["relay"]
        before = settledFiles(family(parent))
        for _ in range(30):
            service.reload()
            time.sleep(0.02)
        service.until(lambda: service.events("service-reloaded"))
        service.until(lambda: not any(isAlive(pid) for pid in before if pid != parent))
        # Whoever was asked last has its turn, too; then there are as many as there were before.
        service.until(lambda: self.isSettled(parent, len(before)))
        service.until(lambda: openFiles(parent) == before[parent])
        [template] = set(children(parent))
        # The relay's queue may be open already, or not.
        after = family(parent) - {service.live()["relay"]}
        del before[relay]
        self.assertEqual(sorted(settledFiles(after).values()), sorted(before.values()))
        workers = service.live()
        os.kill(template, signal.SIGKILL)
        service.until(lambda: not any(map(isAlive, workers.values())))
        service.waitForWorkers(3)
        service.send(1)
        service.until(lambda: service.delivered() == [1])
        alive = family(parent)
        service.reload()
        time.sleep(0.2)
        service.child.send_signal(signal.SIGTERM)
        service.reload()
        alive |= family(parent)
        self.assertEqual(service.child.wait(60), -signal.SIGTERM)
        service.until(lambda: not any(map(isAlive, alive)))
        self.assertEqual(service.output.count("Traceback"), 0, service.output)
        self.assertEqual(list((service.directory / "tmp").iterdir()), [])

    async def test_activated(self) -> None:
        """A socket that systemd has opened is served by all workers, and stays open."""
        await deferToThread(self.activated)

    def activated(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        service = self.service(Path(self.mktemp()), activated=listening)
        service.waitForWorkers(2)
        workers = service.live().values()
        clients = [service.client()]
        while min(map(connections, workers)) == 0:
            self.assertLess(len(clients), 40, "one worker takes no connections")
            clients.append(service.client())
        self.assertEqual(sum(map(connections, workers)), len(clients))
        for client in clients:
            client.close()
        service.reload()
        service.until(lambda: service.events("service-reloaded"))
        service.client().close()
        service.stop()
        waiting = socket.create_connection(listening.getsockname())
        waiting.close()

    async def test_background(self) -> None:
        """In the background, with a pid file and a text log that is rotated."""
        await deferToThread(self.background)

    def background(self) -> None:
        options = ("--pidfile", "pid", "--logfile", "text.log")
        service = self.service(Path(self.mktemp()), "", 2, *options, inBackground=True)
        self.assertEqual(service.child.wait(60), 0)
        pid = int(service.until(lambda: service.read("pid")))
        alive = {pid}
        try:
            service.waitForWorkers(2)
            alive = family(pid)
            service.send(1)
            service.until(lambda: "message accepted: " in service.read("text.log"))
            os.kill(pid, signal.SIGUSR1)
            service.until(lambda: (service.directory / "text.log.1").exists())
            service.send(2)
            service.until(lambda: "message accepted: " in service.read("text.log"))
            self.assertEqual(service.read("text.log").count("message accepted: "), 1)
        finally:
            os.kill(pid, signal.SIGTERM)
        service.until(lambda: not any(map(isAlive, alive)))
        self.assertFalse((service.directory / "pid").exists())

    async def test_parentKilled(self) -> None:
        """Workers whose parent is gone end by themselves."""
        await deferToThread(self.parentKilled)

    def parentKilled(self) -> None:
        service = self.start(RELAY)
        workers = service.live()
        service.child.kill()
        service.until(lambda: not any(map(isAlive, workers.values())))

    async def test_connections(self) -> None:
        """Limits of connections, in all and from one address, hold for all workers together."""
        await deferToThread(self.limits)

    def limits(self) -> None:
        service = self.start("[limits]\nconnections = 12\nconnections_per_address = 8\n", 3)
        clients = [service.client() for _ in range(8)]
        for _ in range(4):
            with self.assertRaises(smtplib.SMTPConnectError) as raised:
                service.client()
            self.assertEqual(raised.exception.smtp_code, 421)
        locals: list[socket.socket] = []

        def connectLocally() -> bytes:
            local = socket.socket(socket.AF_UNIX)
            self.addCleanup(local.close)
            local.settimeout(60)
            local.connect(service.socket)
            said = local.recv(1000)[:3]
            if said == b"220":
                locals.append(local)
            else:
                local.close()
            return said

        # A client that was turned away counts until it is gone.
        service.until(lambda: connectLocally() and len(locals) == 4)
        self.assertEqual(connectLocally(), b"421")
        # Those of a worker that was killed count no longer.
        os.kill(service.live()["1"], signal.SIGKILL)
        service.until(lambda: service.events("worker-died"))
        service.waitForWorkers(3)
        gone = 0
        for client in clients:
            try:
                gone += client.noop()[0] != 250
            except smtplib.SMTPServerDisconnected:
                gone += 1
        again: list[smtplib.SMTP] = []

        def connect() -> bool:
            try:
                again.append(service.client())
            except smtplib.SMTPConnectError:
                return False
            return True

        service.until(lambda: len(again) == gone or (connect() and False))
        self.assertFalse(connect())
        for client in (*clients, *again):
            client.close()

    async def test_counted(self) -> None:
        """Rates, failed logins and the brake count in all workers together."""
        await deferToThread(self.counted)

    def counted(self) -> None:
        service = self.start(
            '[[policy]]\nuse = "rate-limit"\nmessages_per_address = "10/hour"\n'
            '[[policy]]\nuse = "login-throttle"\nper_address = "6/hour"\ndelay = 0\n'
            '[[policy]]\nuse = "brake"\npath = "usual"\nfirst_time = "3/hour"\n',
            3,
        )
        for number in range(10):
            with service.client() as client:
                if number < 6:
                    client.login("alice", "first")
                    to = [f"r{number}@example.org"]
                    client.sendmail("a@example.com", to, f"Subject: {number}\r\n\r\nx\r\n")
                else:
                    service.send(number, client)
        service.until(lambda: len(service.events("message-accepted")) == 10)
        held = service.events("message-held")
        self.assertEqual((len(held), len(service.events("brake-applied"))), (3, 1))
        for _ in range(4):
            with service.client() as client:
                client.ehlo("x")
                self.assertEqual(client.mail("a@example.com")[0], 450)
        codes = []
        for number in range(8):
            try:
                with service.client() as client:
                    client.login("bob", f"wrong{number}")
            except smtplib.SMTPAuthenticationError as error:
                codes.append(error.smtp_code)
            except smtplib.SMTPConnectError as error:
                codes.append(error.smtp_code)
            except smtplib.SMTPServerDisconnected:
                codes.append(421)
        # smtplib tries each password twice, by PLAIN and LOGIN; that is no other guess.
        self.assertEqual(codes, [*[535] * 5, *[421] * 3])

    async def test_tidied(self) -> None:
        """What tidies temporary files away does not keep another worker from beginning."""
        await deferToThread(self.tidied)

    def tidied(self) -> None:
        service = self.start('[[policy]]\nuse = "login-throttle"\ndelay = 0\n', 2)
        for place in service.directory.glob("tmp/submitd-*"):
            shutil.rmtree(place)
        os.kill(service.live()["1"], signal.SIGKILL)
        service.until(lambda: service.events("worker-died"))
        service.waitForWorkers(2)
        with service.client() as client:
            client.login("alice", "first")

    async def test_password(self) -> None:
        """A password that was changed lets nobody in any more, whichever worker remembers it."""
        await deferToThread(self.password)

    def password(self) -> None:
        service = self.start("", 3)
        for _ in range(12):
            with service.client() as client:
                client.login("alice", "first")
        time.sleep(0.01)
        service.setPassword("second")
        for _ in range(12):
            with service.client() as client:
                self.assertRaises(smtplib.SMTPAuthenticationError, client.login, "alice", "first")
            with service.client() as client:
                client.login("alice", "second")

    async def test_tickets(self) -> None:
        """A TLS session that one worker began, any of them resumes; so does one begun later."""
        await deferToThread(self.tickets)

    def tickets(self) -> None:
        service = self.start("", 3)
        context = ssl.create_default_context(cafile=str(DATA / "certificate.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session: Any = None
        resumed = []
        for number in range(24):
            if number == 12:
                os.kill(service.live()["1"], signal.SIGKILL)
                service.until(lambda: service.events("worker-died"))
                service.waitForWorkers(3)
            with (
                socket.create_connection(("127.0.0.1", service.implicit), 60) as plain,
                context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
            ):
                self.assertTrue(secure.recv(1000).startswith(b"220 "))
                session = session or secure.session
                resumed.append(secure.session_reused)
        self.assertEqual(resumed, [False, *[True] * 23])

    async def test_dates(self) -> None:
        """That a certificate has expired is said by one worker, and by the one in its place."""
        await deferToThread(self.dates)

    def dates(self) -> None:
        long = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=400)
        old = Path(self.mktemp()).absolute()
        certificate, key = selfSigned(old, long)
        files = f'certificate = "{certificate}"\nprivate_key = "{key}"\n'
        service = self.start(f'[tls.sni."old.example"]\n{files}', 3)
        service.waitForWorkers(3)
        service.until(lambda: service.events("tls-out-of-time"))
        os.kill(service.live()["1"], signal.SIGKILL)
        service.until(lambda: len(service.events("tls-out-of-time")) > 1)
        service.waitForWorkers(3)
        self.assertEqual(len(service.events("tls-out-of-time")), 2)

    async def test_rights(self) -> None:
        """The parent opens the ports, and then nobody is root, the workers least of all."""
        await deferToThread(self.rights)

    def rights(self) -> None:
        if os.getuid() != 0:
            raise self.skipTest("only root can give up its rights")
        # Not below trial's own directory, which root keeps to itself.
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        os.chown(directory, 65534, 65534)
        service = self.service(directory, "", 2, "--uid", "65534", "--gid", "65534")
        workers = service.waitForWorkers(2)
        for pid in (service.child.pid, *workers.values()):
            status = Path(f"/proc/{pid}/status").read_text()
            self.assertIn("\nUid:\t65534\t65534\t65534\t65534", status)
            self.assertIn("\nGid:\t65534\t65534\t65534\t65534", status)
        self.assertEqual((directory / "key.pem").stat().st_uid, 0)
        service.client().close()

    async def test_log(self) -> None:
        """The parent's text log has the workers' events, too; the JSON log has each once."""
        await deferToThread(self.log)

    def log(self) -> None:
        service = self.start("", 2, "--logfile", "text.log")
        for number in range(10):
            service.send(number)
        text = service.directory / "text.log"
        service.until(lambda: text.read_text().count("message accepted: ") == 10)
        service.until(lambda: len(service.events("message-accepted")) == 10)
        # Moved away, it begins anew with the next reload.
        (service.directory / "events.json").rename(service.directory / "old.json")
        service.reload()
        service.until(lambda: service.events("service-reloaded"))
        service.send(10)
        service.until(lambda: len(service.events("message-accepted")) == 1)
        service.until(lambda: text.read_text().count("message accepted: ") == 11)
        service.stop()
        # What was said last is there, too, from both workers that were told to end.
        self.assertEqual(text.read_text().count("service stopped: "), 5)
