"""Fitted models for runtimes other than PyTorch: ONNX and OpenVINO."""
