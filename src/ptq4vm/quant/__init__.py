"""Quantized layers, their quantizers, and checkpoints of them."""
