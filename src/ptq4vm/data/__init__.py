"""Clips from disk or made up, and the data module that hands them to the stages."""
