"""One settings object for the service and its local workers, read from the environment (`LUTHIER_*`)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from luthier.logs import LogFormat


class GraderSettings(BaseSettings):
    """What graders may do and whom they may ask: a setting of the service, and of each machine with workers."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", frozen=True)

    python_graders: bool = Field(default=False, description="run the code of `python` graders, in a sandbox")
    grader_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="OpenAI-compatible API that `score_model` and `label_model` ask, e.g. http://127.0.0.1:8000/v1",
    )
    grader_api_key: SecretStr | None = Field(default=None, description="its key; never stored and never shown")
    grader_concurrency: int = Field(default=8, ge=1, le=256, description="answers that it is asked about at a time")
    grader_timeout_seconds: float = Field(default=60.0, gt=0, description="how long one of its answers may take")


class LogSettings(BaseSettings):
    """How the service and each worker log."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", frozen=True)

    log_format: LogFormat = Field(default="text", description="log lines for people, or as JSON for programs")


class Settings(GraderSettings, LogSettings):
    """Each field is the environment variable LUTHIER_<NAME>; the command line's options come before it."""

    home: Path = Field(default=Path("~/.luthier"), description="where the embedded store, artifacts and caches live")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default: SQLite under the home")
    blobs_url: str | None = Field(default=None, description="fsspec URL for artifacts; default: a folder in the home")
    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    max_upload_bytes: int = Field(default=2**30, ge=1, description="largest dataset file")
    max_row_bytes: int = Field(default=4 * 2**20, ge=1, description="longest line of a JSONL file")
    generation_seconds: float = Field(default=45.0, gt=0, description="longest that an environment may make rows")
    lease_seconds: float = Field(default=30.0, gt=0, description="a lease not renewed for so long is taken back")
    checkpoint_seconds: float = Field(default=60.0, gt=0, description="training time that a lost worker may cost")
    poll_seconds: float = Field(default=1.0, gt=0, description="how often an idle worker asks for work")
    generation_idle_seconds: float = Field(
        default=300.0, gt=0, description="how long a worker keeps the model in memory that nobody chats with any more"
    )
    vllm_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="OpenAI-compatible API that answers completions in place of the workers, e.g. http://gpu:8000/v1",
    )
    vllm_api_key: SecretStr | None = Field(default=None, description="its key; never stored and never shown")
    tick_seconds: float = Field(default=0.5, gt=0, description="how often the service looks after its jobs")
    secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="what keys and sessions are signed with, the same for all replicas; default: a file in the home",
    )
    requests_per_minute: int = Field(default=1200, ge=1, description="that one key may make; workers' are not counted")
    attempts_per_minute: int = Field(default=30, ge=1, description="wrong keys and log-ins from one address")

    mlflow_url: str | None = Field(default=None, description="MLflow's tracking server, which is told of all trials")
    tensorboard_dir: Path | None = Field(default=None, description="folder for TensorBoard's files on all trials")

    @property
    def local_only(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def home_dir(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.home_dir / 'luthier.db'}"

    @property
    def blobs(self) -> str:
        return self.blobs_url or f"file://{self.home_dir / 'blobs'}"


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own way to itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
