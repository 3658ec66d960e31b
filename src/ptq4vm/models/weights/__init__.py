"""Pretrained weights of any network: read from a file, verified, fetched and cached. A format of files, or a kind of
place that has weights, may enter. What a family does not share with others, as where its weights are and what they are
called, is in its own folder, and no network is built here."""
