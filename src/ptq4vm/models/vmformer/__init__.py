"""A small transformer for video matting, in the spirit of VMFormer: the network, its attention, how it is cut up. What
is true of this network alone may enter. Nobody outside may import from it: the registry of families finds it."""

from ptq4vm.models.vmformer import family as family  # registers it
