"""The first tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("raw", sa.String(), nullable=False),
        sa.Column("rows", sa.String(), nullable=False),
        sa.Column("profile", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("ix_files_created_at_id", "files", ["created_at", "id"])
    op.create_index("ix_files_raw", "files", ["raw"])
    op.create_index("ix_files_rows", "files", ["rows"])

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("model", sa.String()),
        sa.Column("method", sa.JSON()),
        sa.Column("task", sa.JSON(), nullable=False),
        sa.Column("search", sa.JSON(), nullable=False),
        sa.Column("constraints", sa.JSON(), nullable=False),
        sa.Column("training_file", sa.String(), nullable=False),
        sa.Column("validation_file", sa.String()),
        sa.Column("train", sa.String(), nullable=False),
        sa.Column("judge", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("suffix", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("best_trial_id", sa.String()),
        sa.Column("fine_tuned_model", sa.String()),
        sa.Column("trained_tokens", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_state_created_at_id", "jobs", ["state", "created_at", "id"])

    op.create_table(
        "models",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("device", sa.JSON(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("name", name="uq_workers_name"),
    )
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_jobs"),
        sa.PrimaryKeyConstraint("position", name="pk_events"),
        sa.UniqueConstraint("id", name="uq_events_id"),
    )
    op.create_index("ix_events_job_id_position", "events", ["job_id", "position"])

    op.create_table(
        "trials",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("design", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("rung", sa.Integer()),
        sa.Column("owner", sa.String()),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("metrics", sa.JSON()),
        sa.Column("test_metrics", sa.JSON()),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint", sa.String()),
        sa.Column("error", sa.Text()),
        sa.Column("finished_by", sa.String()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_trials_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("job_id", "digest", "seed", name="uq_trials_job_id_digest_seed"),
        sa.UniqueConstraint("job_id", "number", name="uq_trials_job_id_number"),
    )
    op.create_index("ix_trials_state_job_id_number", "trials", ["state", "job_id", "number"])

    op.create_table(
        "artifacts",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_artifacts_trials"),
        sa.PrimaryKeyConstraint("trial_id", "kind", name="pk_artifacts"),
    )
    op.create_table(
        "checkpoint_blobs",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_checkpoint_blobs_trials"),
        sa.PrimaryKeyConstraint("trial_id", "digest", name="pk_checkpoint_blobs"),
    )
    op.create_index("ix_checkpoint_blobs_digest", "checkpoint_blobs", ["digest"])

    op.create_table(
        "points",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("stage", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_points_trials"),
        sa.PrimaryKeyConstraint("trial_id", "stage", "name", "step", name="pk_points"),
    )
    op.create_table(
        "rungs",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("rung", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_rungs_trials"),
        sa.PrimaryKeyConstraint("trial_id", "rung", name="pk_rungs"),
    )
    op.create_table(
        "artifact_files",
        sa.Column("trial_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id", "kind"],
            ["artifacts.trial_id", "artifacts.kind"],
            name="fk_artifact_files_artifacts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", "kind", "path", name="pk_artifact_files"),
    )
    op.create_index("ix_artifact_files_digest", "artifact_files", ["digest"])
