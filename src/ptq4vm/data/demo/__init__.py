"""How the demo clips are made: pictures from installed packages, cut out, moved and composited. What draws or renders
them may enter. No download may, and no chance that a seed does not decide."""
