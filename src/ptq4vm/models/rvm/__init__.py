"""Robust Video Matting, written from the paper: the network, where its weights are, how it is cut up and exported.
What is true of RVM alone may enter. What another family could use belongs beside this folder, and nobody outside may
import from it: the registry of families finds it."""

from ptq4vm.models.rvm import family as family  # registers it
