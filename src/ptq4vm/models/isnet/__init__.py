"""IS-Net, written from the paper and the published graph: the network, where its weights are, how it is cut up. What is
true of this network alone may enter. Nobody outside may import from it: the registry of families finds it."""

from ptq4vm.models.isnet import family as family  # registers it
