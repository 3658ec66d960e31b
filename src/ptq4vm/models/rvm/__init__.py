"""Robust Video Matting, written from the paper."""
