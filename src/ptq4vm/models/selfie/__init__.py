"""MediaPipe's selfie segmentation, written from its graph: the network, where its weights are, how it is cut up. What
is true of this network alone may enter. Nobody outside may import from it: the registry of families finds it."""

from ptq4vm.models.selfie import family as family  # registers it
