"""A PostgreSQL server of one's own on loopback, for the time of a block."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

TOOLS = ("initdb", "pg_ctl")


def absent() -> list[str]:
    """Programs of PostgreSQL that are not in PATH (Debian keeps them in /usr/lib/postgresql/15/bin)."""
    return [name for name in TOOLS if shutil.which(name) is None]


@contextlib.contextmanager
def server(password: str) -> Iterator[str]:
    """The address of its database `postgres` and user `finetrace`, without the password, which the server asks for."""
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "password").write_text(password)
        if user:
            shutil.chown(folder, user)
            shutil.chown(Path(folder) / "password", user)
        data, port = f"{folder}/data", free_port()

        def serve(*words: str) -> None:
            subprocess.run(words, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=120)

        serve("initdb", "-D", data, "-U", "finetrace", "-A", "scram-sha-256", "--pwfile", f"{folder}/password", "-N",
              "--locale=C", "-E", "UTF8")
        serve("pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "start", "-o",
              f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off")
        try:
            yield f"postgresql://finetrace@127.0.0.1:{port}/postgres"
        finally:
            serve("pg_ctl", "-D", data, "-m", "immediate", "stop")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
