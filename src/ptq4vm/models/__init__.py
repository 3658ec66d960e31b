"""Matting networks, family by family, and their pretrained weights.

A family is one folder (``rvm/``): its network, where its weights are and whose they are, how it is cut up, and how its
special modules are exported; what families share (the network's interface, the registry, finding and caching weights)
lies beside the folders. Nothing enters that knows quantization, data or an engine, and nothing outside a family's
folder may ask which family a network is of.
"""
