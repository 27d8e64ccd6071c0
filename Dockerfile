# One image for the service and its workers; torch comes with CUDA, so that a machine needs only NVIDIA's driver and
# container toolkit. How it is used: docs/operations.md.
FROM python:3.11-slim-bookworm

# Triton compiles small kernels when it first needs them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/luthier
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY luthier luthier
COPY search search
COPY service service
COPY workers workers
COPY migrations migrations
COPY demo demo
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[cuda,mlflow,s3]'

# What is made here belongs to this user in volumes too.
RUN useradd --uid 10001 --create-home luthier \
    && mkdir --parents /data/models /cache \
    && chown --recursive luthier /data /cache
USER 10001
WORKDIR /home/luthier
ENV LUTHIER_HOME=/data PYTHONUNBUFFERED=1
VOLUME ["/data"]
EXPOSE 8420
CMD ["luthier", "serve", "--host", "0.0.0.0", "--workers", "0"]
