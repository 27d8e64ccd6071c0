"""Trials told to other tools, where the settings ask for it: MLflow (LUTHIER_MLFLOW_URL), TensorBoard
(LUTHIER_TENSORBOARD_DIR).

A trial is told when it has ended, whole and once; what a tool has already is asked of the tool itself, so that nothing
is lost by a restart. A tool that does not answer keeps nobody waiting: the next look tries again.
"""
