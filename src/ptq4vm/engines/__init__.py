"""What runs a network frame by frame, behind one interface: PyTorch, and exported files by the engines of
:mod:`ptq4vm.engines.files`. States stay inside, and engines are measured side by side here. How a file comes about may
not enter, nor torch where an exported file is opened: that needs neither torch nor a configuration."""
