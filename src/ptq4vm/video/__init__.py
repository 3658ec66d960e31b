"""Matting a stream: the loop, scene cuts, composing pictures, and where they go. It takes a reader, an engine
and a writer. Decoding and encoding are :mod:`ptq4vm.media`'s, and no network is loaded here."""
