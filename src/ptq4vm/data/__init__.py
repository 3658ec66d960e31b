"""Clips from disk or made up, and the data module that hands them to the stages. What a data set is, and how clips are
listed, composited, altered and drawn as samples, may enter. No network, quantizer or metric may, and no file is decoded
here: :mod:`ptq4vm.media` does that."""
