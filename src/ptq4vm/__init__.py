"""Post-training quantization for video matting networks."""

__version__ = "0.1.0"
