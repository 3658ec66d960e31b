"""Names of a quantized network's files, for whoever looks for them without reading them: nothing is imported here."""

from __future__ import annotations

TENSORS, CHOICES = "model.safetensors", "quantizer.yaml"
