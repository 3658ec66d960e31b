"""Matting networks and their pretrained weights."""
