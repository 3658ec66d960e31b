"""From a quantized network to a file for an engine, and the proof that the file computes the same. Targets, graph
passes and metadata live here. No file is opened to matte with it: that is :mod:`ptq4vm.engines`."""
