"""One settings object for the service and its local workers, read from the environment (`LUTHIER_*`)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from luthier.logs import LogFormat


def _listed(value: Any) -> Any:
    """Split a text at its commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class GraderSettings(BaseSettings):
    """Settings of graders. Set them for the service and on each machine with workers."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", frozen=True)

    python_graders: bool = Field(default=False, description="run `python` graders in a sandbox")
    grader_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="OpenAI-compatible API that `score_model` and `label_model` call, e.g. http://127.0.0.1:8000/v1",
    )
    grader_api_key: SecretStr | None = Field(
        default=None, description="API key for LUTHIER_GRADER_BASE_URL; never stored or shown"
    )
    grader_concurrency: int = Field(default=8, ge=1, le=256, description="concurrent requests to the grader API")
    grader_timeout_seconds: float = Field(default=60.0, gt=0, description="timeout of one request to the grader API")


class LogSettings(BaseSettings):
    """Settings of the logs of the service and its workers."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", frozen=True)

    log_format: LogFormat = Field(default="text", description="`text` for people, `json` for programs")


class Settings(GraderSettings, LogSettings):
    """Each field is set by the environment variable LUTHIER_<NAME>. Command-line options take precedence."""

    home: Path = Field(default=Path("~/.luthier"), description="folder of the SQLite store, artifacts and caches")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default: SQLite under the home")
    blobs_url: str | None = Field(
        default=None, description="fsspec URL for artifacts; default: a folder under the home"
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    max_upload_bytes: int = Field(default=2**30, ge=1, description="largest dataset file")
    max_row_bytes: int = Field(default=4 * 2**20, ge=1, description="longest line of a JSONL file")
    generation_seconds: float = Field(
        default=45.0, gt=0, description="time limit for an environment to generate its rows"
    )
    lease_seconds: float = Field(default=30.0, gt=0, description="a lease expires if not renewed for this long")
    checkpoint_seconds: float = Field(
        default=60.0, gt=0, description="least time between two checkpoints; large ones are rarer"
    )
    poll_seconds: float = Field(default=1.0, gt=0, description="how often an idle worker asks for work")
    generation_idle_seconds: float = Field(
        default=300.0, gt=0, description="how long a worker keeps an idle chat model in memory"
    )
    vllm_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="OpenAI-compatible API that serves completions instead of the workers, e.g. http://gpu:8000/v1",
    )
    vllm_api_key: SecretStr | None = Field(
        default=None, description="API key for LUTHIER_VLLM_URL; never stored or shown"
    )
    samplers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="import paths of Optuna samplers that jobs may name in `search.sampler`, separated by commas, e.g. "
        "optuna.samplers:QMCSampler",
    )
    tick_seconds: float = Field(default=0.5, gt=0, description="how often the service updates its jobs")
    secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="signs keys and sessions; must be the same for all replicas; default: a file in the home",
    )
    requests_per_minute: int = Field(default=1200, ge=1, description="rate limit of one key; worker keys have none")
    attempts_per_minute: int = Field(default=30, ge=1, description="rate limit of wrong keys from one address")

    mlflow_url: str | None = Field(default=None, description="MLflow tracking server that all trials are logged to")
    tensorboard_dir: Path | None = Field(default=None, description="folder for the TensorBoard logs of all trials")

    @property
    def local_only(self) -> bool:
        """True if only this machine can reach the service."""
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
    """Return whether a host name or address is a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
