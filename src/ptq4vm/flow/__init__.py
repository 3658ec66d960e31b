"""Optical flow: estimators, occlusions, and the cache."""
