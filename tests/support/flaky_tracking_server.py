"""A tracking server that can be taken away: MLflow's own, behind a door."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path


class Door:
    """Passes connections on to a port of this machine while it is open; while it is shut they are refused, and those that are there break.

    Args:
        target: the port.

    Attributes:
        port: its own.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Let connections through."""
        with self._lock:
            if self._listener is not None:
                return
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Break all connections, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
                listener.close()
            for connection in list(self._connections):
                _break(connection)
            self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                inside, _ = listener.accept()
                outside = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:
                    _break(inside)
                    _break(outside)
                    return
                self._connections |= {inside, outside}
            for one, other in ((inside, outside), (outside, inside)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for connection in (source, target):
            with self._lock:
                self._connections.discard(connection)
            _break(connection)


class TrackingServer:
    """MLflow's server with its own storage of files, and a door to it. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._wavering: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self.door = Door(self._port)
        self.uri = f"http://127.0.0.1:{self.door.port}"

    def __enter__(self) -> TrackingServer:
        command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self._folder}/server.db",
            "--artifacts-destination",
            f"{self._folder}/files",
        ]
        self._output = (self._folder / "server.log").open("w")
        self._server = subprocess.Popen([*command, "--workers", "1"], stdout=self._output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self._server.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
                return self
            time.sleep(0.2)
        self._end()
        raise AssertionError((self._folder / "server.log").read_text())

    def __exit__(self, *error: object) -> None:
        self.stay("down")
        self._end()

    def stay(self, state: str, seed: int = 0) -> None:
        """Be ``up``, ``down``, or ``wavering``: down and up again, each for a drawn time of up to four seconds."""
        if self._wavering is not None and self._thread is not None:
            self._wavering.set()
            self._thread.join()
            self._wavering = self._thread = None
        if state == "wavering":
            self._wavering = threading.Event()
            self._thread = threading.Thread(target=self._waver, args=(self._wavering, random.Random(seed)), daemon=True)
            self._thread.start()
        elif state == "up":
            self.door.open()
        else:
            self.door.shut()

    def _waver(self, stop: threading.Event, draw: random.Random) -> None:
        while not stop.is_set():
            self.door.shut()
            stop.wait(draw.uniform(0, 4))
            self.door.open()
            stop.wait(draw.uniform(0, 4))

    def _end(self) -> None:
        self._server.terminate()
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._output.close()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
