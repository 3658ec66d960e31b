"""Robust Video Matting, written from the paper."""

from ptq4vm.models.rvm import family as family  # registers it
