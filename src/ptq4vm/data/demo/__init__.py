"""How the demo clips are made: pictures from packages, cut out, moved and composited."""
