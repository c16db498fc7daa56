"""SLURM jobs of Dask workers: scripts in which every option is quoted, and sbatch's refusals.

dask_jobqueue replaces signal handlers on import, so this module is imported only where it is needed
(`clusters.start_slurm`).
"""

import logging
import math
import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob
from distributed import Status

logger = logging.getLogger(__name__)

SECURITY_FILES = {"tls-ca-file": "ca.pem", "tls-cert": "cert.pem", "tls-key": "key.pem"}  # worker's option → file


@dataclass
class Submissions:
    """Submissions of a cluster's jobs, as the jobs record them.

    Attributes:
        pending: number of sbatch calls that have not returned.
        refused: sbatch's message about the last job that it refused.
        refused_at: when that was, in seconds of `time.monotonic`.
    """

    pending: int = 0
    refused: str = ""
    refused_at: float = -math.inf


class Job(SLURMJob):
    """A job that records why sbatch refused it; dask_jobqueue raises an exception that nobody catches."""

    def __init__(self, *args: Any, submissions: Submissions, **options: Any):
        super().__init__(*args, **options)
        self.submissions = submissions

    async def start(self) -> None:
        """Submit the job."""
        self.submissions.pending += 1
        try:
            await super().start()
        except (OSError, RuntimeError, ValueError) as error:
            self.submissions.refused = _describe_refusal(error)
            self.submissions.refused_at = time.monotonic()
            logger.warning("SLURM did not take a job: %s", self.submissions.refused)
            self.status = Status.running  # without a job_id
        finally:
            self.submissions.pending -= 1

    async def close(self) -> None:
        """Cancel the job, if there is one."""
        await super().close()
        self.status = Status.closed


class Cluster(SLURMCluster):
    """SLURM jobs of one scheduler; `worker_extra_args` names the workers' TLS files."""

    job_cls: type[SLURMJob] = Job
    _alive_at = -math.inf

    def _get_worker_security(self, security: object) -> None:
        """Write no TLS files: dask_jobqueue would not quote their names."""

    def refusal(self) -> str:
        """sbatch's message, if no job is left and all jobs submitted since were refused; else "". To be polled."""
        submissions: Submissions = self._job_kwargs["submissions"]
        if submissions.pending or any(job.job_id for job in list(self.workers.values())):
            self._alive_at = time.monotonic()
        return submissions.refused if submissions.refused_at > self._alive_at else ""


def _describe_refusal(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"sbatch: {error.strerror} (is this a machine that submits SLURM jobs?)"
    return " ".join(str(error).rpartition("stderr:\n")[2].split()) or " ".join(str(error).split())


def quote_job_options(options: dict[str, Any]) -> dict[str, Any]:
    """Quote the options of a table for a job script: each is one line, and one word for the shell.

    `job_script_prologue` is meant to be shell code and is not quoted. In `local_directory` variables such as $TMPDIR
    are expanded on the node.

    Raises:
        ValueError: a value that is not text, has a line break, or can't be quoted where it is used.
    """
    quoted = dict(options)
    for name in ("queue", "account", "python", "local_directory", "log_directory", "interface"):
        if name in quoted:
            quoted[name] = _check_line(name, quoted[name])
    quoted["python"] = shlex.quote(quoted.get("python", sys.executable))
    for name in ("queue", "account"):
        if name in quoted:
            quoted[name] = shlex.quote(quoted[name])
    if "local_directory" in quoted:
        quoted["local_directory"] = _quote_with_variables(quoted["local_directory"])
    for name, allowed in (("interface", r"[\w.:@-]+"), ("log_directory", r"[\w./+@%=,:-]+")):
        if name in quoted and not re.fullmatch(allowed, quoted[name]):
            raise ValueError(f"slurm {name}: expected a name without blanks and quotes, got {quoted[name]!r}")
    directives = quoted.get("job_extra_directives", [])
    if not isinstance(directives, list):
        raise ValueError(f"slurm job_extra_directives: expected a list of options, got {directives!r}")
    quoted["job_extra_directives"] = [_check_line("job_extra_directives", entry) for entry in directives]
    prologue = quoted.get("job_script_prologue", [])
    if not isinstance(prologue, list) or not all(isinstance(line, str) for line in prologue):
        raise ValueError(f"slurm job_script_prologue: expected a list of shell commands, got {prologue!r}")
    return quoted


def _check_line(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"slurm {name}: expected a text in one line, got {value!r}")
    return value


def _quote_with_variables(text: str) -> str:
    """Quote a text as one word of the shell, in which only $NAME and ${NAME} are expanded."""
    return '"' + re.sub(r'(\$\w+|\$\{\w+\})|[\\"`$]', lambda match: match[1] or "\\" + match[0], text) + '"'


def make_worker_arguments(keys: Path, lifetime: int) -> list[str]:
    """Arguments of `dask worker`: a limited lifetime, no dashboard, TLS only, with the keys in a folder."""
    options = [f"--{option} {shlex.quote(str(keys / name))}" for option, name in SECURITY_FILES.items()]
    return ["--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--lifetime", f"{lifetime}s", *options]
