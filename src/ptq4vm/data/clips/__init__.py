"""Clips as they lie on disk: sources, foregrounds and backgrounds, listed and not yet decoded. Reading a file is
:mod:`ptq4vm.media`'s. Nothing is drawn at random here."""
