"""What runs a network frame by frame: PyTorch, and exported files by their engines, behind one interface. States stay
inside. Opening a file needs neither torch nor a configuration."""
