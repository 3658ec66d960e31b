"""Matting a stream: the loop, scene cuts, composing pictures, and where they go. It takes a reader and an engine.
Decoding and encoding are :mod:`ptq4vm.media`'s."""
