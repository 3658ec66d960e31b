"""Engines of exported files, one file each, which registers its class when it is imported. What one engine's package
offers may enter. No torch, and no engine's package before a file is opened: a file needs its own engine alone."""
