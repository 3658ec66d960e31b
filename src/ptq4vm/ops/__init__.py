"""Pure tensor maths without a network: warping, trees of tensors, memory formats, and the modules that mark a place for
quantizers. Tensors and the plain values of :mod:`ptq4vm.types` enter; files, random state and settings do not."""
