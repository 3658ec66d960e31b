"""Pretrained weights of any network: read from a file, verified, fetched and cached.

What a family does not share with others, as where its weights are and what they are called, is in its own folder.
"""
