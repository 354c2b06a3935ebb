"""A Slurm cluster of one node on 127.0.0.1, for tests: munge, optionally accounting, controller and node."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb", "mariadb-install-db")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_SLURM = """ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={d}/run/munge.socket
CryptoType=crypto/munge
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool
SlurmctldPidFile={d}/run/slurmctld.pid
SlurmdPidFile={d}/run/slurmd.pid
SlurmctldLogFile={d}/log/slurmctld.log
SlurmdLogFile={d}/log/slurmd.log
SlurmctldPort={port}
SlurmdPort={next_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{accounting}
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
KillWait=3
MinJobAge=300
InactiveLimit=0
Waittime=0
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=cpu Nodes={node} Default=YES MaxTime=60 State=UP
"""
_KEPT = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={d}/run/munge.socket"""
_DBD = """AuthType=auth/munge
AuthInfo=socket={d}/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=test
StorageLoc=slurm_acct_db
LogFile={d}/log/slurmdbd.log
PidFile={d}/run/slurmdbd.pid
"""
_SQL = """create database slurm_acct_db; create user 'slurm'@'127.0.0.1' identified by 'test';
create user 'slurm'@'localhost' identified by 'test'; grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';
grant all on slurm_acct_db.* to 'slurm'@'localhost'; flush privileges"""


def missing(accounting: bool) -> list[str]:
    """What must be installed (and who one must be) to start the cluster."""
    programs = (*NEEDED, *(ACCOUNTING if accounting else ()))
    lacking = [name for name in programs if not shutil.which(name, path=_PATH)]
    return lacking or ([] if os.geteuid() == 0 else ["root"])


@contextmanager
def cluster(accounting: bool) -> Iterator[dict[str, str]]:
    """Start the cluster; gives the environment in which its commands work."""
    directory = Path(tempfile.mkdtemp(prefix="moesim_slurm_", dir="/tmp"))  # short for sockets, open to mysql's user
    directory.chmod(0o755)
    for name in ("state", "spool", "log", "run", "db"):
        (directory / name).mkdir()
    (directory / "log").chmod(0o700)
    ports = dict(zip(("port", "next_port", "dbd_port", "sql_port"), _free_ports(4), strict=True))
    values = {
        "d": directory,
        "node": socket.gethostname().partition(".")[0],
        "cpus": min(os.cpu_count() or 1, 2),
        **ports,
    }
    kept = _KEPT.format(**values) if accounting else "AccountingStorageType=accounting_storage/none"
    (directory / "slurm.conf").write_text(_SLURM.format(**values, accounting=kept))
    environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(directory / "slurm.conf")}
    started: list[subprocess.Popen] = []
    with (directory / "log" / "daemons.log").open("wb") as log:
        try:
            _start(directory, values, accounting, environment, started, log)
            yield environment
        finally:
            _stop(started)
            shutil.rmtree(directory, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _start(d: Path, values: dict, accounting: bool, environment: dict, started: list, log) -> None:
    (d / "munge.key").write_bytes(os.urandom(1024))
    (d / "munge.key").chmod(0o400)

    def run(*command: object) -> None:
        subprocess.run([*map(str, command)], env=environment, stdout=log, stderr=log, check=True, timeout=60)

    def background(*command: object) -> None:
        started.append(subprocess.Popen([*map(str, command)], env=environment, stdout=log, stderr=log))

    paths = {"key-file": "munge.key", "socket": "run/munge.socket", "pid-file": "run/munged.pid"}
    paths |= {"log-file": "log/munged.log", "seed-file": "run/munge.seed"}
    background("munged", "--foreground", "--force", *(f"--{name}={d / path}" for name, path in paths.items()))
    _until(lambda: (d / "run" / "munge.socket").exists(), "munged")
    if accounting:
        _start_accounting(d, values, run, background)
    background("slurmctld", "-D")
    background("slurmd", "-D")
    idle = ["sinfo", "--noheader", "--format=%T"]
    _until(lambda: subprocess.run(idle, env=environment, capture_output=True).stdout.strip() == b"idle", "slurmd")


def _start_accounting(d: Path, values: dict, run, background) -> None:
    shutil.chown(d / "db", pwd.getpwnam("mysql").pw_name)
    sql, common = d / "db" / "mysql.sock", ("--no-defaults", "--user=mysql", f"--datadir={d / 'db'}")
    run("mariadb-install-db", *common, "--auth-root-authentication-method=normal")
    background("mariadbd", *common, f"--socket={sql}", f"--port={values['sql_port']}", "--bind-address=127.0.0.1",
               "--innodb-lock-wait-timeout=900", "--innodb-buffer-pool-size=128M")  # fmt: skip
    _until(sql.exists, "mariadbd")
    run("mariadb", "--no-defaults", "-S", sql, "-u", "root", "-e", _SQL)
    (d / "slurmdbd.conf").write_text(_DBD.format(**values))
    (d / "slurmdbd.conf").chmod(0o600)
    background("slurmdbd", "-D")

    def known() -> bool:
        with suppress(subprocess.CalledProcessError):
            run("sacctmgr", "-i", "add", "cluster", "test")
            return True
        return False

    _until(known, "slurmdbd")


def _until(ready, what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start in {seconds:g} s")
        time.sleep(0.2)


def _stop(started: list[subprocess.Popen]) -> None:
    """End what was started, the last first; each may have children that end with it."""
    for process in reversed(started):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
