"""Integrations: webhooks, Prometheus, and experiment trackers (MLflow at LUTHIER_MLFLOW_URL, TensorBoard at
LUTHIER_TENSORBOARD_DIR).

A trial is logged to the trackers when it has ended, completely and once. The publisher asks each tracker what it
already has, so that a restart loses nothing. A tracker that does not respond is tried again later.
"""
