"""MODNet, written from the paper: the network, the names in the authors' checkpoints, how it is cut up. What is true of
this network alone may enter. Nobody outside may import from it: the registry of families finds it."""

from ptq4vm.models.modnet import family as family  # registers it
